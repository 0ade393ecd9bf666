"""The runs of one stack: equal choices, different seeds."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hybridlab.records.json_values import to_text
from hybridlab.records.measurement import Measurement
from hybridlab.records.record import RunRecord
from hybridlab.records.slices import SLICES
from hybridlab.report.runs.statistics import Estimate, estimate
from hybridlab.report.runs.tuning import TUNED, UNTUNED, Tuning, tune

Place = str | int | None


@dataclass(frozen=True)
class StackRuns:
    """All runs of one stack, the first made first; of a tuned stack those with the chosen values."""

    choices: dict[str, Any]
    records: tuple[RunRecord, ...]
    tuning: Tuning = UNTUNED
    name: str = ""  # of its row in a sweep's table

    @cached_property
    def finished(self) -> tuple[RunRecord, ...]:
        """The runs that count: for each seed the first that finished, so that a copy of a run is no further evidence."""
        by_seed: dict[int, RunRecord] = {}
        for record in self.records:
            if record.status == "finished":
                by_seed.setdefault(record.seed, record)
        return tuple(by_seed.values())

    @property
    def all_records(self) -> tuple[RunRecord, ...]:
        """The runs with values that were not chosen, too."""
        return (*self.records, *self.tuning.others)

    @property
    def first(self) -> RunRecord:
        """The run that speaks for the stack where all its runs agree."""
        return (self.finished or self.records)[0]

    @property
    def groupings(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """The layers of the plan, by ("group", declared layer group), then by ("mixer", kind of mixer)."""
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for grouping in ("group", "mixer"):
            for layer in self.first.plan:
                found.setdefault((grouping, layer[grouping]), []).append(layer)
        return found

    @property
    def parts(self) -> list[str]:
        """The parts of parallel layers that were knocked out apart."""
        rows = self.first.measurements
        return list(dict.fromkeys(row.group for row in rows if row.grouping == "part"))

    @property
    def groups(self) -> list[str]:
        """The declared layer groups, nearest to the embedding first."""
        return [group for grouping, group in self.groupings if grouping == "group"]

    @property
    def buckets(self) -> list[str]:
        """The ranges of positions that the NLL was measured on, the first first."""
        return self.buckets_of("position", "nll")

    def buckets_of(self, name: str, measure: str, **where: Place) -> list[str]:
        """Return the buckets of a slice that a measure was broken down into, in their order."""
        return in_order(name, self.values(measure, "bucket", slice=name, **where))

    def values(self, measure: str, field: str, **where: Place) -> list[Any]:
        """Return what a field of the measure's rows takes, in the order of the record; `where` narrows the rows."""
        rows = (row for row in self.first.measurements if row.measure == measure and row.step is None)
        return list(
            dict.fromkeys(
                getattr(row, field) for row in rows if all(getattr(row, name) == found for name, found in where.items())
            )
        )

    def find(self, measure: str, **where: Place) -> Estimate | None:
        """Return a number of the stack over its finished runs, or None if no run measured it.

        `where` gives fields of Measurement: grouping and group, part, block, slice and bucket; by default the whole stack's.
        """
        rows = self.by_seed(measure, **where)
        return estimate(rows.values()) if rows else None

    def by_seed(self, measure: str, **where: Place) -> dict[int, Measurement]:
        """Return the row of each finished run, by seed: what two stacks are paired by."""
        return self._rows.get((measure, *(where.get(name, default) for name, default in WHERE.items())), {})

    @cached_property
    def _rows(self) -> dict[tuple[Place, ...], dict[int, Measurement]]:
        rows: dict[tuple[Place, ...], dict[int, Measurement]] = {}
        for record in self.finished:
            for row in record.measurements:
                if row.step is None:
                    key = (row.measure, *(getattr(row, name) for name in WHERE))
                    rows.setdefault(key, {}).setdefault(record.seed, row)
        return rows


WHERE: dict[str, Place] = {"grouping": "stack", "group": "", "part": "", "block": None, "slice": "", "bucket": ""}


def by_stack(records: Iterable[RunRecord], tuned: Sequence[str] = TUNED) -> list[StackRuns]:
    """Put together the runs whose choices are equal, seed apart; the stack whose first run was made first comes first.

    Runs that differ in the `tuned` choices alone are one stack too: its values are those with the best validation NLL.
    """
    groups: dict[str, tuple[dict[str, Any], list[RunRecord]]] = {}
    for record in records:
        choices = {key: value for key, value in record.choices.items() if key != "seed"}
        groups.setdefault(to_text(choices, sort_keys=True), (choices, []))[1].append(record)
    plain = [(choices, tuple(runs)) for choices, runs in groups.values()]
    searched = tune(plain, tuned)
    if searched is None:
        return [StackRuns(choices, runs) for choices, runs in plain]
    return [StackRuns(choices, tuning.chosen, tuning) for choices, tuning in searched]


def in_order(name: str, buckets: Iterable[str]) -> list[str]:
    """Return the buckets of a slice as a reader expects them: by their labels, else by their first number."""
    labels = SLICES[name].labels

    def place(bucket: str) -> float:
        if bucket in labels:
            return labels.index(bucket)
        number = re.search(r"\d+(\.\d+)?", bucket)
        return float(number[0]) if number else float("inf")

    return sorted(buckets, key=place)
