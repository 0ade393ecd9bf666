"""Swaps of the mixer of one layer group: stacks that differ in nothing else, paired by seed."""

from collections.abc import Iterable
from typing import NamedTuple

from hybridlab.report.runs.choices import GROUPS, differing, group_of, is_mixer, value
from hybridlab.report.runs.format import NOT_MEASURED, p_value, percent, with_interval
from hybridlab.report.runs.headline import Headline
from hybridlab.report.runs.stack_runs import Filter, StackRuns
from hybridlab.report.runs.statistics import Estimate, holm, over_seeds, p_differs

LEVEL = 0.05  # family-wise, for all tests of a table


class Swap(NamedTuple):
    """One layer group's mixer replaced."""

    group: str
    before: str
    after: str
    difference: Estimate | None  # after minus before, over the seeds that both stacks finished
    p: float | None  # two-sided, corrected for all swaps of the table; None if there is no test
    verdict: str
    parameters: float | None  # after / before


def swaps(base: StackRuns, stacks: Iterable[StackRuns], headline: Headline) -> list[Swap]:
    """Return the swaps from `base` to other stacks, by paired t tests with Holm's correction."""
    found: list[tuple[str, StackRuns]] = []
    for other in stacks:
        keys = differing(base, other)
        groups = {group_of(key) for key in keys}
        if len(groups) == 1 and None not in groups and not any(key.endswith(".layers") for key in keys):
            found.append((str(groups.pop()), other))
    found.sort(key=lambda swap: base.groups.index(swap[0]) if swap[0] in base.groups else -1)
    differences = [differences_by_seed(base, other, headline.compared) for _, other in found]
    tested = [index for index, values in enumerate(differences) if len(values) > 1]
    corrected = holm([p_differs(differences[index]) for index in tested])
    p_values = dict(zip(tested, corrected, strict=True))
    rows = []
    for index, (group, other) in enumerate(found):
        difference = over_seeds(differences[index]) if differences[index] else None
        p = p_values.get(index)
        before, after = (_mixer(stack, group, differing(base, other)) for stack in (base, other))
        word = verdict(difference, p, headline)
        rows.append(Swap(group, before, after, difference, p, word, _size_ratio(base, other)))
    return rows


def paired_by_seed(base: StackRuns, other: StackRuns, measure: str = "nll", **where: Filter) -> Estimate | None:
    """Return a number of `other` minus that of `base`, paired by seed."""
    differences = differences_by_seed(base, other, measure, **where)
    return over_seeds(differences) if differences else None


def differences_by_seed(base: StackRuns, other: StackRuns, measure: str, **where: Filter) -> list[float]:
    """Return the differences `other` minus `base` for each seed that both finished."""
    before, after = (stack.by_seed(measure, **where) for stack in (base, other))
    return [after[seed].value - before[seed].value for seed in before if seed in after]


def swap_row(swap: Swap) -> tuple[str, ...]:
    """Return a swap as a row: group, from, to, effect, difference, p, seeds, parameters."""
    num_seeds = str(swap.difference.n) if swap.difference else "0"
    size = NOT_MEASURED if swap.parameters is None else percent(swap.parameters)
    difference = with_interval(swap.difference, signed=True)
    return swap.group, swap.before, swap.after, swap.verdict, difference, p_value(swap.p), num_seeds, size


def correction(num_tests: int) -> str:
    """Return the note on how the verdicts of a table were reached."""
    if not num_tests:
        return "One seed in common: no test. An interval over documents does not cover the variation of seeds."
    return (
        f"Effect: two-sided paired t test over seeds, Holm's correction for the m = {num_tests} comparisons of this "
        "table, 5 % for all together. The intervals are not corrected."
    )


def verdict(difference: Estimate | None, p: float | None, headline: Headline) -> str:
    """Return what a difference shows, given its corrected p-value."""
    if difference is None:
        return NOT_MEASURED
    if p is None:
        return "one seed: no test"
    if not p < LEVEL:
        return "no difference shown"
    return "better" if (difference.value > 0) == headline.higher_is_better else "worse"


def _mixer(stack: StackRuns, group: str, keys: list[str]) -> str:
    """Name the mixer of a group, with the settings that differ if the mixer does not."""
    name = value(stack, f"{GROUPS}{group}.mixer")
    if any(map(is_mixer, keys)):
        return name
    settings = (f"{key.rpartition('.')[2]}={value(stack, key)}" for key in keys if key in stack.choices)
    return f"{name} ({', '.join(settings)})"


def _size_ratio(base: StackRuns, other: StackRuns) -> float | None:
    sizes = [stack.find("parameters") for stack in (base, other)]
    return sizes[1].value / sizes[0].value if sizes[0] and sizes[1] and sizes[0].value else None
