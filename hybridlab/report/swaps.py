"""What changing the mixer of one layer group does: stacks that differ in nothing else, paired by seed."""

from collections.abc import Iterable
from typing import NamedTuple

from hybridlab.report.choices import GROUPS, differing, group_of, is_mixer, value
from hybridlab.report.numbers import NOT_MEASURED, percent, with_interval
from hybridlab.report.stack_runs import StackRuns
from hybridlab.report.statistics import Estimate, over_seeds


class Swap(NamedTuple):
    """One layer group's mixer replaced."""

    group: str
    before: str
    after: str
    difference: Estimate | None  # NLL after minus NLL before, over the seeds that both stacks finished
    parameters: float | None  # after / before


def swaps(base: StackRuns, stacks: Iterable[StackRuns]) -> list[Swap]:
    """Return the swaps that lead from `base` to another stack."""
    found = []
    for other in stacks:
        keys = differing(base, other)
        groups = {group_of(key) for key in keys}
        if len(groups) != 1 or None in groups or any(key.endswith(".layers") for key in keys):
            continue
        group = str(groups.pop())
        before, after = (_mixer(stack, group, keys) for stack in (base, other))
        found.append(Swap(group, before, after, paired_by_seed(base, other), _size_ratio(base, other)))
    return sorted(found, key=lambda swap: base.groups.index(swap.group) if swap.group in base.groups else -1)


def paired_by_seed(base: StackRuns, other: StackRuns, bucket: str = "") -> Estimate | None:
    """Return the NLL of `other` minus that of `base`, seed by seed: what the seeds share cancels."""
    before, after = (_nll_by_seed(stack, bucket) for stack in (base, other))
    differences = [after[seed] - before[seed] for seed in before if seed in after]
    return over_seeds(differences) if differences else None


def swap_row(swap: Swap) -> tuple[str, ...]:
    """Return a swap as a row: group, from, to, difference, verdict, seeds, parameters."""
    num_seeds = str(swap.difference.n) if swap.difference else "0"
    size = NOT_MEASURED if swap.parameters is None else percent(swap.parameters)
    effect = with_interval(swap.difference, signed=True)
    return swap.group, swap.before, swap.after, verdict(swap.difference), effect, num_seeds, size


def verdict(difference: Estimate | None) -> str:
    """Say what a difference in NLL shows: lower is better, and an interval that holds 0 shows neither."""
    if difference is None:
        return NOT_MEASURED
    if difference.low is None or difference.high is None:
        return "one seed"
    return "worse" if difference.low > 0 else "better" if difference.high < 0 else "not resolved"


def _mixer(stack: StackRuns, group: str, keys: list[str]) -> str:
    """Name the mixer of a group; where two stacks have the same in it, name it by the settings that differ."""
    name = value(stack, f"{GROUPS}{group}.mixer")
    if any(map(is_mixer, keys)):
        return name
    settings = (f"{key.rpartition('.')[2]}={value(stack, key)}" for key in keys if key in stack.choices)
    return f"{name} ({', '.join(settings)})"


def _nll_by_seed(stack: StackRuns, bucket: str) -> dict[int, float]:
    return {
        record.seed: row.value
        for record in stack.finished
        for row in record.measurements
        if row.measure == "nll" and row.step is None and (row.grouping, row.bucket) == ("stack", bucket)
    }


def _size_ratio(base: StackRuns, other: StackRuns) -> float | None:
    sizes = [stack.find("parameters") for stack in (base, other)]
    return sizes[1].value / sizes[0].value if sizes[0] and sizes[1] and sizes[0].value else None
