"""How far back the gradient of each layer group comes from."""

from hybridlab.report.content import Picture, Section
from hybridlab.report.runs.format import how
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.sections.grids import Column, by_bucket, section_of

ORDER = 80
PICTURE = Picture("influence", "Effective memory: share of the gradient by lag.")


def section(stack: StackRuns) -> list[Section]:
    """Return the share of the gradient at each lag, a column per layer group."""
    columns = [Column(group, "influence", {"grouping": "group", "group": group}) for group in stack.groups]
    caption = "Effective memory: the share of the gradient that comes from each number of tokens back."
    table = by_bucket(stack, "lag", f"{caption} {how(stack.find('nll'))}", columns, "Lag (tokens)")
    return section_of("Effective memory", table, PICTURE, detail=True)
