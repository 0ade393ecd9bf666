"""Which number of which stack is meant, in the words of a sweep's file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hybridlab.errors import ConfigError, near_miss
from hybridlab.records.measurement import GROUPINGS, Measurement
from hybridlab.records.measures import MEASURES
from hybridlab.records.slices import SLICES
from hybridlab.report.runs.choices import keys_called, label, telling, value
from hybridlab.report.runs.format import setting
from hybridlab.report.runs.stack_runs import WHERE, Place, StackRuns

FIELDS = ("measure", *WHERE)
_ALLOWED = {"measure": tuple(MEASURES), "grouping": GROUPINGS, "slice": ("", *SLICES)}


@dataclass(frozen=True)
class Selection:
    """One number: the stack by its choices, as `--base` names them, and the fields of the measurement."""

    place: str  # in the sweep's file, for refusals
    choices: dict[str, str]
    measure: str
    where: dict[str, Place]

    @classmethod
    def of(cls, words: dict[str, Any], place: str) -> "Selection":
        """Read a mapping: a key that is a field of a measurement says which number, any other which stack."""
        for key, allowed in _ALLOWED.items():
            if words.get(key, allowed[0]) not in allowed:
                raise ConfigError(f"{place}: `{key}={words[key]}`: no such {key}; {near_miss(words[key], allowed)}")
        if "measure" not in words:
            raise ConfigError(f"{place}: a `measure` is needed, there or in `table`")
        where = {key: _field(key, words[key]) for key in WHERE if key in words}
        choices = {key: setting(words[key]) for key in words if key not in FIELDS}
        return cls(place, choices, words["measure"], where)

    def stack(self, stacks: Sequence[StackRuns]) -> StackRuns | None:
        """Return the one stack that has these choices, or None if none was run."""
        found = list(stacks)
        for name, wanted in self.choices.items():
            keys = keys_called(name, stacks)
            found = [stack for stack in found if any(value(stack, key) == wanted for key in keys)]
        if len(found) > 1:
            few = "; ".join(label(stack, telling(found)) for stack in found[:3])
            raise ConfigError(f"{self.place}: {len(found)} stacks are meant, say which: {few}")
        return found[0] if found else None

    def by_seed(self, stacks: Sequence[StackRuns]) -> dict[int, Measurement]:
        """Return the rows of the number, by seed; empty where it was not measured."""
        stack = self.stack(stacks)
        return stack.by_seed(self.measure, **self.where) if stack else {}


def _field(key: str, word: Any) -> Place:
    return int(word) if key == "block" and word is not None else "" if word is None else str(word)
