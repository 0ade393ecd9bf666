"""Learning curves; of several stacks, also the NLL by position."""

from hybridlab.report.content import Picture, Section
from hybridlab.report.runs.stack_runs import StackRuns

ORDER = 125
PICTURE = Picture("learning_curve", "Training and validation NLL.")
COMPARED = (
    Picture("nll_by_position", "NLL by position in the document, minus that of the base, paired by seed."),
    Picture("learning_curve", "Validation NLL during training, a line per seed."),
)


def section(stack: StackRuns) -> list[Section]:
    """Return the learning curve, if the runs kept one."""
    kept = any(each.step is not None for record in stack.finished for each in record.measurements)
    return [Section(title="Training", pictures=(PICTURE,), detail=True)] if kept else []


def comparison(stacks: list[StackRuns], base: StackRuns) -> list[Section]:
    """Return the figures of all stacks by position and during training."""
    return [Section(title="By position and during training", pictures=COMPARED, detail=True)]
