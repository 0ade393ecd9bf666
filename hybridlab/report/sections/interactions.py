"""What ablating two layer groups together costs beyond the sum of their own ablations."""

from hybridlab.report.content import Section
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.sections.grids import Column, by_group, section_of, signed

ORDER = 100
SIGN = "Above 0: one does the other's work when that is ablated. Below 0: they need each other."
COLUMNS = (
    Column("Mixers", "interaction", {"part": "mixer"}, signed, SIGN),
    Column("Channel mixers", "interaction", {"part": "channel"}, signed, SIGN),
)


def section(stack: StackRuns) -> list[Section]:
    """Return the interaction of every pair of layer groups."""
    text = "Interaction: zero ablation of two layer groups at once, minus the sum of their own (nats/token)."
    return section_of("Interactions", by_group(stack, text, COLUMNS), detail=True)
