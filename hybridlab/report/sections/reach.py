"""How far back each layer group needs to look."""

from hybridlab.report.content import Picture, Section
from hybridlab.report.runs.format import how
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.sections.grids import Column, by_group, plain, section_of, signed

ORDER = 70
PICTURE = Picture("reach", "Reach: NLL added when a layer group sees no further back than its block.")


def section(stack: StackRuns) -> list[Section]:
    """Return the NLL added by limiting how far a group's mixers look back, a column per block."""
    blocks = sorted(stack.values("reach", "block", slice=""))
    columns = [Column(f"{block:,}", "reach", {"part": "mixer", "block": block}, signed) for block in blocks]
    caption = "Reach: NLL added (nats/token) when the layers' mixers look back one to two blocks of tokens."
    table = by_group(
        stack,
        f"{caption} {how(stack.find('nll'))}",
        [*columns, Column("Reach\n(tokens)", "reach_tokens", {"part": "mixer"}, plain)],
    )
    return section_of("Reach", table, PICTURE, detail=True)
