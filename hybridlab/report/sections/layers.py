"""Every measure that was taken of single layers."""

from hybridlab.report.content import Section
from hybridlab.report.runs.format import how
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.sections.grids import by_group, columns_of, section_of

ORDER = 60


def section(stack: StackRuns) -> list[Section]:
    """Return a row per layer, a column per measure."""
    text = f"Each single layer; losses, ablations and lenses in nats/token. {how(stack.find('nll'))}"
    table = by_group(stack, text, columns_of(stack, ("layer",)), groupings=("layer",))
    return section_of("Layer by layer", table, detail=True)
