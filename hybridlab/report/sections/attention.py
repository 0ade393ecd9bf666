"""How the attention mixers attend."""

from hybridlab.report.content import Section
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.sections.grids import Column, by_group, section_of

ORDER = 90
COLUMNS = (
    Column("Distance\n(tokens)", "attention_distance"),
    Column("Entropy\n(nats)", "attention_entropy"),
    Column("On the first\ntoken", "attention_first"),
)


def section(stack: StackRuns) -> list[Section]:
    """Return distance, entropy and attention on the first token, with their intervals."""
    table = by_group(stack, "Attention, mean over heads and positions.", COLUMNS)
    return section_of("Attention", table, detail=True)
