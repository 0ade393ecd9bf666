"""What in a stack may be more than it needs: layers that turn the residual stream little, groups that add the same."""

from itertools import combinations

from hybridlab.report.content import Picture, Section, Table
from hybridlab.report.runs.format import significant
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.sections.grids import Column, by_place


def redundancy_section(stack: StackRuns) -> list[Section]:
    """Return how much each layer turns the residual stream, and how alike the groups are."""
    influence = by_place(
        stack,
        "Block influence: 1 − cosine of the residual stream before and after the layers. Low: they may be dispensable.",
        [Column("Block\ninfluence", "block_influence")],
    )
    tables = tuple(table for table in (influence, similarity_table(stack)) if table)
    picture = Picture(
        "redundancy", "How much each layer turns the residual stream; how alike the groups' additions to it are."
    )
    return [Section(title="Redundancy", tables=tables, pictures=(picture,), detail=True)] if tables else []


def similarity_table(stack: StackRuns) -> Table | None:
    """Return the matrix of linear CKA between what the layer groups add."""
    alike = similarities(stack)
    if not alike:
        return None
    rows = tuple((one, *(significant(alike.get((one, other)), 3) for other in stack.groups)) for one in stack.groups)
    return Table(
        caption="Linear CKA between what two layer groups add to the residual stream; 1: the same up to rotation and scale.",
        text=("Layer\ngroup",),
        numbers=tuple(stack.groups),
        bodies=(rows,),
    )


def similarities(stack: StackRuns) -> dict[tuple[str, str], float]:
    """Return the linear CKA of every ordered pair of layer groups that it was measured of, and of each with itself."""
    found = {}
    for one, other in combinations(stack.groups, 2):
        number = stack.find("similarity", grouping="pair", group=f"{one} & {other}")
        if number:
            found[one, other] = found[other, one] = number.value
    return found | {(group, group): 1.0 for group in stack.groups} if found else {}
