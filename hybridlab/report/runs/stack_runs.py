"""The runs of one stack: equal choices, different seeds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hybridlab.records.description import MeasureDescription, SliceDescription
from hybridlab.records.grouping import by_group_and_mixer
from hybridlab.records.json_values import to_text
from hybridlab.records.measurement import Measurement
from hybridlab.records.record import RunRecord
from hybridlab.report.runs.scored import scored
from hybridlab.report.runs.statistics import Estimate, estimate
from hybridlab.report.runs.tuning import TUNED, UNTUNED, Tuning, tune

Filter = str | int | None  # the value that a field of the wanted measurements has

# The fields that tell the measurements of one measure apart, with their values for the whole stack.
WHOLE_STACK: dict[str, Filter] = {
    "grouping": "stack",
    "group": "",
    "part": "",
    "block": None,
    "slice": "",
    "bucket": "",
}


@dataclass(frozen=True)
class StackRuns:
    """The runs of one stack, the first made first; if tuned, those with the chosen values."""

    choices: dict[str, Any]
    records: tuple[RunRecord, ...]
    tuning: Tuning = UNTUNED
    name: str = ""  # of its row in a sweep's table
    counts: tuple[str, ...] = ("finished",)  # the statuses of runs whose numbers are shown

    @cached_property
    def finished(self) -> tuple[RunRecord, ...]:
        """The runs that count: of each seed the first that finished, as copies are no evidence."""
        by_seed: dict[int, RunRecord] = {}
        for record in self.records:
            if record.status in self.counts:
                by_seed.setdefault(record.seed, record)
        return tuple(by_seed.values())

    @property
    def all_records(self) -> tuple[RunRecord, ...]:
        """All runs, including those with values that were not chosen."""
        return (*self.records, *self.tuning.others)

    @property
    def first(self) -> RunRecord:
        """The run that stands for the stack in what all its runs share."""
        return (self.finished or self.records)[0]

    @cached_property
    def measures(self) -> dict[str, MeasureDescription]:
        """The description of every measure; if runs disagree, the first made decides."""
        found: dict[str, MeasureDescription] = {}
        for record in (*self.finished, *self.records):
            found = {**found, **{name: it for name, it in record.measures.items() if name not in found}}
        return found

    @cached_property
    def slices(self) -> dict[str, SliceDescription]:
        """The description of every slice, with the buckets of all runs in one order."""
        found: dict[str, SliceDescription] = {}
        for record in (*self.finished, *self.records):
            for name, slice in record.slices.items():
                before = found.get(name, slice)
                found[name] = before._replace(buckets=merged(before.buckets, slice.buckets))
        return found

    @property
    def derived(self) -> dict[str, Any]:
        """The sizes that `stack.match` set, by dotted key: no choices of an author."""
        return self.first.derived

    @property
    def groupings(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """The layers by ("group", declared layer group), then by ("mixer", kind of mixer)."""
        return by_group_and_mixer(self.first.plan, lambda layer, grouping: layer[grouping])

    @property
    def parts(self) -> list[str]:
        """The parts of parallel layers that were ablated one by one."""
        found = (each.group for each in self.first.measurements if each.grouping == "part")
        return list(dict.fromkeys(found))

    @property
    def groups(self) -> list[str]:
        """The declared layer groups, nearest to the embedding first."""
        return [group for grouping, group in self.groupings if grouping == "group"]

    @property
    def buckets(self) -> list[str]:
        """The ranges of positions in which the NLL was measured, in order."""
        return self.buckets_of("position", "nll")

    def buckets_of(self, name: str, measure: str, **where: Filter) -> list[str]:
        """Return the buckets of a slice in which a measure was taken, in their order."""
        return self.in_order(name, self.values(measure, "bucket", slice=name, **where))

    def in_order(self, name: str, buckets: Iterable[str]) -> list[str]:
        """Return buckets of a slice in the order that the records give them."""
        order = self.slices[name].buckets if name in self.slices else ()
        return sorted(buckets, key=order.index)

    def values(self, measure: str, field: str, **where: Filter) -> list[Any]:
        """Return the values of a field in a measure's measurements; `where` narrows these down."""
        found = (each for each in self.first.measurements if each.measure == measure and each.step is None)
        narrowed = (each for each in found if all(getattr(each, name) == value for name, value in where.items()))
        return list(dict.fromkeys(getattr(each, field) for each in narrowed))

    def find(self, measure: str, **where: Filter) -> Estimate | None:
        """Return a number of the stack over its finished runs, or None if no run measured it.

        `where` sets fields of Measurement: grouping and group, part, block, slice and bucket; the
        default is the whole stack.
        """
        found = self.by_seed(measure, **where)
        return estimate(found.values()) if found else None

    def by_seed(self, measure: str, **where: Filter) -> dict[int, Measurement]:
        """Return the measurement of each finished run by seed, as two stacks are paired."""
        return self._measurements.get((measure, *(where.get(name, whole) for name, whole in WHOLE_STACK.items())), {})

    @cached_property
    def _measurements(self) -> dict[tuple[Filter, ...], dict[int, Measurement]]:
        found: dict[tuple[Filter, ...], dict[int, Measurement]] = {}
        for record in self.finished:
            for each in record.measurements:
                if each.step is None:
                    key = (each.measure, *(getattr(each, name) for name in WHOLE_STACK))
                    found.setdefault(key, {}).setdefault(record.seed, each)
        return found


def by_stack(records: Iterable[RunRecord], tuned: Sequence[str] = TUNED) -> list[StackRuns]:
    """Group runs that differ only in their seed; the stack with the first run comes first.

    Runs that differ only in the `tuned` choices are one stack too, which takes the values with the
    best validation NLL. Runs of equal choices whose sizes were matched otherwise, or that were
    scored on other text, are different stacks.
    """
    records = list(records)
    texts = {_made(record): text for record in reversed(records) if (text := scored(record))}
    groups: dict[tuple[str, str], tuple[dict[str, Any], list[RunRecord]]] = {}
    for record in records:
        made = _made(record)
        text = scored(record) or texts.get(made, "")
        groups.setdefault((made, text), (_choices(record), []))[1].append(record)
    plain = [(choices, tuple(runs)) for choices, runs in groups.values()]
    searched = tune(plain, tuned)
    if searched is None:
        return [StackRuns(choices, runs) for choices, runs in plain]
    return [StackRuns(choices, tuning.chosen, tuning) for choices, tuning in searched]


def _choices(record: RunRecord) -> dict[str, Any]:
    return {key: value for key, value in record.choices.items() if key != "seed"}


def _made(record: RunRecord) -> str:
    return to_text([_choices(record), record.derived], sort_keys=True)


def merged(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    """Merge two orders: items of only `other` go before the next common item, else to the end.

    >>> merged(["0", "1", "4"], ["0", "2", "4", "8"])
    ('0', '1', '2', '4', '8')
    """
    found = list(one)
    for item in other:
        if item not in found:
            following = (each for each in other[other.index(item) + 1 :] if each in found)
            common = next(following, None)
            found.insert(len(found) if common is None else found.index(common), item)
    return tuple(found)
