"""The number and the stack that a sweep's file selects."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hybridlab.errors import ConfigError, near_miss
from hybridlab.records.measurement import GROUPINGS, Measurement
from hybridlab.report.runs.choices import distinguishing_keys, keys_called, label, no_choice, value
from hybridlab.report.runs.format import setting
from hybridlab.report.runs.stack_runs import WHOLE_STACK, Filter, StackRuns
from hybridlab.report.runs.titles import measures_of

FIELDS = ("measure", *WHOLE_STACK)


@dataclass(frozen=True)
class Selection:
    """One number: its stack, by choices as `--base` names them, and its measurement."""

    location: str  # in the sweep's file, for error messages
    choices: dict[str, str]
    measure: str
    where: dict[str, Filter]

    @classmethod
    def of(cls, words: dict[str, Any], location: str) -> "Selection":
        """Read a mapping: fields of a measurement select the number, any other key the stack."""
        if words.get("grouping", "stack") not in GROUPINGS:
            grouping = words["grouping"]
            raise ConfigError(
                f"{location}: `grouping={grouping}`: no such grouping; {near_miss(str(grouping), GROUPINGS)}"
            )
        if "measure" not in words:
            raise ConfigError(f"{location}: `measure` is missing, here and in `table`")
        where = {key: _field(key, words[key]) for key in WHOLE_STACK if key in words}
        choices = {key: setting(words[key]) for key in words if key not in FIELDS}
        return cls(location, choices, str(words["measure"]), where)

    def stack(self, stacks: Sequence[StackRuns]) -> StackRuns | None:
        """Return the one stack that has these choices, or None if none was run."""
        found = list(stacks)
        for name, wanted in self.choices.items():
            keys = keys_called(name, stacks)
            found = [stack for stack in found if any(value(stack, key) == wanted for key in keys)]
        if len(found) > 1:
            few = "; ".join(label(stack, distinguishing_keys(found)) for stack in found[:3])
            raise ConfigError(f"{self.location}: matches {len(found)} stacks, select one of them: {few}")
        return found[0] if found else None

    def by_seed(self, stacks: Sequence[StackRuns]) -> dict[int, Measurement]:
        """Return the measurements of the number, by seed; none if it was not taken."""
        stack = self.stack(stacks)
        return stack.by_seed(self.measure, **self.where) if stack else {}


def unknown_names(selections: Iterable[Selection], stacks: Sequence[StackRuns]) -> list[str]:
    """Return a message with the near miss for each name that these runs do not have.

    Choices, measures, slices and buckets are checked; while no run has finished, only choices.
    """
    selections = list(selections)
    choices = dict.fromkeys(name for selection in selections for name in selection.choices)
    messages = [f"In these runs {no_choice(name, stacks)}" for name in choices if not keys_called(name, stacks)]
    measures = measures_of(stacks)
    if not measures:
        return messages
    buckets: dict[str, dict[str, None]] = {}
    for stack in stacks:
        for name, found in stack.slices.items():
            buckets.setdefault(name, {}).update(dict.fromkeys(found.buckets))
    for selection in selections:
        slice, bucket = (str(selection.where.get(key, "")) for key in ("slice", "bucket"))
        messages += _unknown("measure", selection.measure, measures)
        messages += _unknown("slice", slice, buckets) if slice else []
        messages += _unknown(f"bucket of `{slice}`", bucket, buckets[slice]) if slice in buckets else []
    return list(dict.fromkeys(messages))


def _unknown(kind: str, name: str, known: Iterable[str]) -> list[str]:
    known = list(known)
    return [] if name in known else [f"In these runs no {kind} is called `{name}`; {near_miss(name, known)}"]


def _field(key: str, word: Any) -> Filter:
    return int(word) if key == "block" and word is not None else "" if word is None else str(word)
