"""Preconditions of a claim: what the runs must show before they can tell anything about it.

A claim that recall falls with length says nothing of stacks that guess; one that attention is
worth its cost, nothing of stacks that never look back; one that a mixer is better, nothing while
its learning rate lies on the edge of what was tried. Where a precondition is not met, the claim is
not testable in these runs, and the table gives the number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hybridlab.errors import ConfigError, near_miss
from hybridlab.report.runs.floors import floors
from hybridlab.report.runs.format import NOT_MEASURED, plain, setting, with_interval
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.runs.statistics import Estimate
from hybridlab.report.sweeps.selection import Selection

NAMES = ("recall", "reach", "rate_inside_grid", "below_ngram")
FLOOR = "floor"
RECALL = {"slice": "recall", "bucket": "recall"}
ACCURACIES = ("accuracy", "example_accuracy")
ORDERS = (2, 3, 4)  # of the n-gram models: the last byte after one, two or three


class Compared(NamedTuple):
    """A row that a claim compares, or one that a precondition names, with its number."""

    row: str
    column: str
    number: Selection

    @property
    def words(self) -> str:
        """The row, with its column if the table has several."""
        return f"{self.row} ({self.column})" if self.column else self.row


class Unmet(NamedTuple):
    """A precondition that a row does not meet."""

    requires: str  # in words
    row: str
    measured: str
    needed: str
    short: str  # for the claim's cell, with the number
    is_floor: bool = False  # whether the row is not shown to do better than a guess


@dataclass(frozen=True)
class Requirement:
    """A named precondition, of the rows that it names or of all that the claim compares."""

    check: Callable[[Compared, StackRuns], Unmet | None]
    rows: tuple[Compared, ...] = ()

    def failed(self, compared: Sequence[Compared], stacks: Sequence[StackRuns]) -> list[Unmet]:
        """Return what is not met; a row without finished runs meets nothing."""
        found: list[Unmet] = []
        checked: list[StackRuns] = []
        for row in self.rows or compared:
            stack = row.number.stack(stacks)
            if not isinstance(self.check, Recall):  # the same for every number of a stack
                if any(stack is other for other in checked):
                    continue
                checked += [stack] if stack else []
            if stack is None or not stack.finished:
                found.append(Unmet("finished runs", row.words, NOT_MEASURED, NOT_MEASURED, f"no runs of {row.words}"))
            elif unmet := self.check(row, stack):
                found.append(unmet)
        return found


class Number(NamedTuple):
    """A number that shows recall, and what a guess reaches."""

    found: Estimate | None
    floor: float | None
    lower_is_better: bool


def recall_of(row: Compared, stack: StackRuns) -> Number:
    """Return the number that shows a row's recall: its own accuracy, or that of the whole stack;
    where recall is a slice of text, the NLL on it.
    """
    known, number = floors(stack.first), row.number
    if number.measure not in ACCURACIES and (found := stack.find("nll", **RECALL)):
        return Number(found, known.get("nll"), lower_is_better=True)
    measure, where = (number.measure, number.where) if number.measure in ACCURACIES else (ACCURACIES[0], {})
    found = stack.find(measure, **where)
    return Number(found, None if where.get("slice") else known.get(measure), lower_is_better=False)


@dataclass(frozen=True)
class Recall:
    """Recall shown to lie above the task's floor, or above a number."""

    above: float | None  # None: the floor that the task states

    def __call__(self, row: Compared, stack: StackRuns) -> Unmet | None:
        """Return what is missing: an interval that lies on the better side of the bound."""
        found, floor, lower_is_better = recall_of(row, stack)
        bound = floor if self.above is None else self.above
        needed = "below" if lower_is_better else "above"
        words = f"recall {needed} {'a guess' if self.above is None else plain(self.above)}"
        if found is None or bound is None:
            why = "recall was not measured" if found is None else "the task states no floor"
            return Unmet(words, row.words, with_interval(found), NOT_MEASURED, why)
        ends = (found.low, found.high)
        worst = ends[lower_is_better] if None not in ends else found.value
        assert worst is not None
        if worst < bound if lower_is_better else worst > bound:
            return None
        number, limit = with_interval(found).partition("\n")[0], plain(bound)
        short = f"recall {number}, {'a guess ' if self.above is None else 'needs '}{limit}"
        return Unmet(words, row.words, with_interval(found), f"{needed} {limit}", short, is_floor=self.above is None)


@dataclass(frozen=True)
class Reach:
    """Some layers shown to use what lies further back than a number of tokens."""

    above: int

    def __call__(self, row: Compared, stack: StackRuns) -> Unmet | None:
        """Return what is missing: a rise of the NLL when mixers see no further than the block."""
        measured = [
            found
            for grouping in dict.fromkeys(stack.values("reach", "grouping", slice="", block=self.above))
            for group in stack.values("reach", "group", grouping=grouping, slice="", block=self.above)
            if (found := stack.find("reach", grouping=grouping, group=group, part="mixer", block=self.above))
        ]
        if any(found.low is not None and found.low > 0 for found in measured):
            return None
        most = max(measured, key=lambda found: found.value, default=None)
        words = f"use of text further back than {self.above:,} tokens"
        number = with_interval(most, signed=True).partition("\n")[0]
        short = f"beyond {self.above:,} tokens {'not measured' if most is None else f'worth {number} NLL'}"
        return Unmet(words, row.words, with_interval(most, signed=True), "above 0", short)


class RateInsideGrid:
    """The chosen value of each tuned setting neither the smallest nor the largest tried."""

    def __call__(self, row: Compared, stack: StackRuns) -> Unmet | None:
        """Return what is missing: values tried on either side."""
        words, edge = "tuned values inside their grids", stack.tuning.at_the_edge
        if not stack.tuning.tried:
            return Unmet(words, row.words, NOT_MEASURED, "three values or more", f"{row.words} was not tuned")
        for key, value in edge.items():
            name, tried = key.rpartition(".")[2], stack.tuning.tried[key]
            grid = f"{setting(min(tried))} to {setting(max(tried))}"
            short = f"{name} {setting(value)} at the edge of {grid}"
            return Unmet(words, row.words, f"{name} {setting(value)}", f"inside {grid}", short)
        return None


@dataclass(frozen=True)
class BelowNgram:
    """Bits per byte shown to lie below those of an n-gram model."""

    order: int

    def __call__(self, row: Compared, stack: StackRuns) -> Unmet | None:
        """Return what is missing: an interval below the model's number."""
        words = f"loss below the {self.order}-gram's"
        found = stack.find("bits_per_byte")
        model = stack.find("ngram_bits_per_byte", slice="context", bucket=str(self.order - 1))
        if found is None or model is None:
            short = f"{self.order}-gram not measured" if model is None else "bits per byte not measured"
            return Unmet(words, row.words, with_interval(found), NOT_MEASURED, short)
        if (found.value if found.high is None else found.high) < model.value:
            return None
        limit = plain(model.value)
        number = with_interval(found).partition("\n")[0]
        short = f"{number} bits per byte, the {self.order}-gram {limit}"
        return Unmet(words, row.words, with_interval(found), f"below {limit}", short)


def read_requirement(
    name: str, given: Any, location: str, row: Callable[[str, str | None, str], Compared]
) -> Requirement:
    """Read one precondition of a claim; `row` returns a row of the table by its name and column.

    Unknown names and values are refused with the near miss.
    """
    if name not in NAMES:
        raise ConfigError(f"{location}: `requires.{name}`: no such precondition; {near_miss(name, NAMES)}")
    location = f"{location}: `requires.{name}`"
    key = {"recall": "above", "reach": "above", "below_ngram": "n"}.get(name)
    given = dict(given) if isinstance(given, dict) else {key: given} if key else {"": given}
    allowed = [word for word in (key, "of", "column") if word]
    value = given.pop("", True)
    if value is not True:
        raise ConfigError(f"{location}: `{setting(value)}`: must be true, or a mapping with `of`; else leave it out")
    for word in given:
        if word not in allowed:
            raise ConfigError(f"{location}: no such key `{word}`; {near_miss(str(word), allowed)}")
    named = given.get("of", [])
    rows = tuple(
        row(str(each), given.get("column"), location) for each in (named if isinstance(named, list) else [named])
    )
    if "of" in given and not rows:
        raise ConfigError(f"{location}: `of: []`: name the rows, or leave it out for all that the claim compares")
    if "column" in given and not rows:
        raise ConfigError(f"{location}: `column`: goes with `of`")
    return Requirement(_check(name, given.get(key) if key else None, location), rows)


def _check(name: str, bound: Any, location: str) -> Callable[[Compared, StackRuns], Unmet | None]:
    number = bound if isinstance(bound, int | float) and not isinstance(bound, bool) else None
    match name:
        case "recall":
            if number is None and bound != FLOOR:
                allowed = f"must be `{FLOOR}`, what the task states that a guess reaches, or a number"
                missed = f"; {near_miss(bound, [FLOOR])}" if isinstance(bound, str) else ""
                raise ConfigError(f"{location}: `above: {setting(bound)}`: {allowed}{missed}")
            return Recall(None if number is None else float(number))
        case "reach":
            if not isinstance(number, int) or number < 1:
                raise ConfigError(f"{location}: `above: {setting(bound)}`: must be a number of tokens, 1 or more")
            return Reach(number)
        case "below_ngram":
            if number not in ORDERS:
                orders = ", ".join(map(str, ORDERS))
                raise ConfigError(f"{location}: `{setting(bound)}`: must be the n of an n-gram, one of {orders}")
            assert isinstance(number, int)
            return BelowNgram(number)
    return RateInsideGrid()
