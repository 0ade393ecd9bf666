"""The runs of one stack: equal choices, different seeds."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hybridlab.records.json_values import to_text
from hybridlab.records.record import RunRecord
from hybridlab.report.statistics import Estimate, estimate


@dataclass(frozen=True)
class StackRuns:
    """All runs of one stack, the first made first."""

    choices: dict[str, Any]
    records: tuple[RunRecord, ...]

    @cached_property
    def finished(self) -> tuple[RunRecord, ...]:
        """The runs that count: for each seed the first that finished, so that a copy of a run is no further evidence."""
        by_seed: dict[int, RunRecord] = {}
        for record in self.records:
            if record.status == "finished":
                by_seed.setdefault(record.seed, record)
        return tuple(by_seed.values())

    @property
    def unfinished(self) -> tuple[RunRecord, ...]:
        """The runs that failed, diverged or still run."""
        return tuple(record for record in self.records if record.status != "finished")

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
        rows = self.first.measurements
        found = {row.bucket: None for row in rows if row.measure == "nll" and row.slice == "position"}
        return sorted(found, key=lambda bucket: int(bucket.partition("-")[0]))

    def find(self, measure: str, **where: str) -> Estimate | None:
        """Return a number of the stack over its finished runs, or None if no run measured it.

        `where` gives fields of Measurement: grouping and group, part, slice and bucket; by default the whole stack's.
        """
        return self._estimates.get((measure, *(where.get(name, default) for name, default in _WHERE.items())))

    @cached_property
    def _estimates(self) -> dict[tuple[str, ...], Estimate]:
        rows: dict[tuple[str, ...], list[Any]] = {}
        for record in self.finished:
            for row in record.measurements:
                if row.step is None:
                    rows.setdefault((row.measure, *(getattr(row, name) for name in _WHERE)), []).append(row)
        return {key: estimate(found) for key, found in rows.items()}


_WHERE = {"grouping": "stack", "group": "", "part": "", "slice": "", "bucket": ""}


def by_stack(records: Iterable[RunRecord]) -> list[StackRuns]:
    """Put together the runs whose choices are equal, seed apart; the stack whose first run was made first comes first."""
    found: dict[str, tuple[dict[str, Any], list[RunRecord]]] = {}
    for record in records:
        choices = {key: value for key, value in record.choices.items() if key != "seed"}
        found.setdefault(to_text(choices, sort_keys=True), (choices, []))[1].append(record)
    return [StackRuns(choices, tuple(runs)) for choices, runs in found.values()]
