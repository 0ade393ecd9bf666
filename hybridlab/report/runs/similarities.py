"""How similar the layer groups of a stack are."""

from itertools import combinations

from hybridlab.report.runs.stack_runs import StackRuns


def similarities(stack: StackRuns) -> dict[tuple[str, str], float]:
    """Return the linear CKA of the measured pairs of groups, in both orders; 1 with itself."""
    found = {}
    for one, other in combinations(stack.groups, 2):
        number = stack.find("similarity", grouping="pair", group=f"{one} & {other}")
        if number:
            found[one, other] = found[other, one] = number.value
    return found | {(group, group): 1.0 for group in stack.groups} if found else {}
