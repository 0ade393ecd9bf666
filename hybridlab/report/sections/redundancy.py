"""Redundancy: layers that hardly turn the residual stream, groups that add the same to it."""

from hybridlab.report.content import Picture, Section, Table
from hybridlab.report.runs.format import significant
from hybridlab.report.runs.similarities import similarities
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.sections.grids import Column, by_group

ORDER = 110
PICTURE = Picture("redundancy", "Block influence of each layer; similarity of what the groups add to the stream.")


def section(stack: StackRuns) -> list[Section]:
    """Return how much each layer turns the residual stream, and how similar the groups are."""
    influence = by_group(
        stack,
        "Block influence: 1 − cosine of the residual stream before and after the layers. Low: they may be dispensable.",
        [Column("Block\ninfluence", "block_influence")],
    )
    tables = tuple(table for table in (influence, similarity_table(stack)) if table)
    return [Section(title="Redundancy", tables=tables, pictures=(PICTURE,), detail=True)] if tables else []


def similarity_table(stack: StackRuns) -> Table | None:
    """Return the matrix of linear CKA between what the layer groups add."""
    found = similarities(stack)
    if not found:
        return None
    rows = tuple((one, *(significant(found.get((one, other)), 3) for other in stack.groups)) for one in stack.groups)
    return Table(
        caption="Linear CKA between what two layer groups add to the residual stream; 1: equal up to rotation and "
        "scale.",
        text=("Layer\ngroup",),
        numbers=tuple(stack.groups),
        bodies=(rows,),
    )
