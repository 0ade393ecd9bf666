"""Swaps of the mixer of one layer group: stacks that differ in nothing else, paired by seed."""

from collections.abc import Iterable
from typing import NamedTuple

from hybridlab.report.runs.choices import GROUPS, differing, group_of, is_mixer, value
from hybridlab.report.runs.decisions import LEVEL, corrected
from hybridlab.report.runs.degenerate import same_stack
from hybridlab.report.runs.format import NOT_MEASURED, p_value, percent, with_interval
from hybridlab.report.runs.headline import Headline
from hybridlab.report.runs.stack_runs import Filter, StackRuns
from hybridlab.report.runs.statistics import Estimate, interval_at, over_seeds, p_each_way

IDENTICAL = "identical"  # the verdict on a swap that changes nothing, followed by the reason


class Swap(NamedTuple):
    """One layer group's mixer replaced."""

    group: str
    before: str
    after: str
    difference: Estimate | None  # after minus before, over the seeds that both stacks finished
    p: float | None  # two-sided, corrected for all swaps of the table; None if there is no test
    verdict: str
    parameters: float | None  # after / before
    together: Estimate | None = None  # with the interval that the verdict uses: it agrees with `p`


def swaps(base: StackRuns, stacks: Iterable[StackRuns], headline: Headline) -> list[Swap]:
    """Return the swaps from `base` to other stacks, by paired t tests with Holm's correction.

    A swap that changes nothing, as that of `full` for a window of the whole sequence, is named and
    not tested.
    """
    found: list[tuple[str, StackRuns]] = []
    for other in stacks:
        keys = differing(base, other)
        groups = {group_of(key) for key in keys}
        if len(groups) == 1 and None not in groups and not any(key.endswith(".layers") for key in keys):
            found.append((str(groups.pop()), other))
    found.sort(key=lambda swap: base.groups.index(swap[0]) if swap[0] in base.groups else -1)
    differences = [differences_by_seed(base, other, headline.compared) for _, other in found]
    same = [same_stack(base, other) for _, other in found]
    tested = [index for index, values in enumerate(differences) if len(values) > 1 and not same[index]]
    tests = dict(zip(tested, corrected([p_each_way(differences[index]) for index in tested]), strict=True))
    rows = []
    for index, (group, other) in enumerate(found):
        values, test = differences[index], tests.get(index)
        difference = over_seeds(values) if values else None
        before, after = (_mixer(stack, group, differing(base, other)) for stack in (base, other))
        p = test.p if test else None
        word = f"{IDENTICAL}: {same[index]}" if same[index] else verdict(difference, p, headline)
        together = interval_at(values, test.tail, test.tail) if test else None
        rows.append(Swap(group, before, after, difference, p, word, _size_ratio(base, other), together))
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
    """Return a swap as a row: group, from, to, effect, difference with its interval alone, p with
    the interval for all swaps, seeds, parameters.
    """
    num_seeds = str(swap.difference.n) if swap.difference else "0"
    size = NOT_MEASURED if swap.parameters is None else percent(swap.parameters)
    difference = with_interval(swap.difference, signed=True)
    together = with_interval(swap.together).partition("\n")[2]
    p = f"{p_value(swap.p)}\n{together}" if together else p_value(swap.p)
    return swap.group, swap.before, swap.after, swap.verdict, difference, p, num_seeds, size


def correction(num_tests: int) -> str:
    """Return the note on how the verdicts of a table were reached."""
    if not num_tests:
        return "One seed in common: no test. An interval over documents does not cover the variation of seeds."
    return (
        f"Effect: two-sided paired t test over seeds, Holm's correction for the m = {num_tests} comparisons of this "
        "table, 5 % for all together, in both directions. The interval of the difference is at 95 %, of this "
        "difference alone, and not what decides. The effect is read off p and the interval below it, which agree: it "
        "is at 1 − 10 %/k, at which Holm's method tests the difference (k = 2m for the smallest p, 2m − 1 for the "
        "next, ...)."
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
