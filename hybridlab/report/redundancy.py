"""What in a stack may be more than it needs: layers that turn the residual stream little, groups that add the same."""

from hybridlab.report.content import Section, Table
from hybridlab.report.grids import Column, by_place
from hybridlab.report.numbers import NOT_MEASURED, significant
from hybridlab.report.stack_runs import StackRuns


def redundancy_section(stack: StackRuns) -> list[Section]:
    """Return how much each layer turns the residual stream, and how alike the groups are."""
    influence = by_place(
        stack,
        "Block influence: 1 − cosine of the residual stream before and after the layers. Low: they may be dispensable.",
        [Column("Block\ninfluence", "block_influence")],
    )
    tables = tuple(table for table in (influence, similarity_table(stack)) if table)
    return [Section(title="Redundancy", tables=tables, detail=True)] if tables else []


def similarity_table(stack: StackRuns) -> Table | None:
    """Return the matrix of linear CKA between what the layer groups add."""

    def cell(one: str, other: str) -> str:
        if one == other:
            return "1"
        found = [
            stack.find("similarity", grouping="pair", group=pair) for pair in (f"{one} & {other}", f"{other} & {one}")
        ]
        return next((significant(number.value, 3) for number in found if number), NOT_MEASURED)

    rows = tuple((one, *(cell(one, other) for other in stack.groups)) for one in stack.groups)
    if all(set(row[1:]) <= {"1", NOT_MEASURED} for row in rows):
        return None
    return Table(
        caption="Linear CKA between what two layer groups add to the residual stream; 1: the same up to rotation and scale.",
        text=("Layer\ngroup",),
        numbers=tuple(stack.groups),
        bodies=(rows,),
    )
