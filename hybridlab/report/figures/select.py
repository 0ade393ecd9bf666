"""The figures, as matplotlib objects: for the page as SVG, for Weights & Biases as images."""

from collections.abc import Mapping, Sequence
from functools import partial

from matplotlib import rc_context
from matplotlib.figure import Figure

from hybridlab.records.record import RunRecord
from hybridlab.report.figures.comparison_figures import (
    TableRow,
    learning_curves,
    ranking,
    stacks_by_position,
    table_rows,
)
from hybridlab.report.figures.drawing import POSITION
from hybridlab.report.figures.stack_figures import (
    influence,
    knockout,
    learning_curve,
    probes_by_slice,
    reach,
    redundancy,
)
from hybridlab.report.figures.style import STYLE
from hybridlab.report.runs.choices import label, telling
from hybridlab.report.runs.headline import headline_of, rank
from hybridlab.report.runs.stack_runs import StackRuns

MOST_STACKS = 12  # more lines than this can't be told apart


def figures(record: RunRecord) -> dict[str, Figure]:
    """Return the figures of one run by name; one that nothing was measured for is left out."""
    return of_stack(StackRuns(record.choices, (record,)))


def of_stack(stack: StackRuns) -> dict[str, Figure]:
    """Return the figures of one stack by name."""
    drawn = {
        "knockout": knockout,
        "nll_by_position": partial(probes_by_slice, name="position", words=POSITION),
        "nll_by_distance": partial(
            probes_by_slice, name="distance", words="distance to what tells the target (tokens)"
        ),
        "reach": reach,
        "influence": influence,
        "redundancy": redundancy,
        "learning_curve": learning_curve,
    }
    with rc_context(STYLE):
        found = {name: draw(stack) for name, draw in drawn.items()}
    return {name: figure for name, figure in found.items() if figure is not None}


def of_stacks(stacks: Sequence[StackRuns], base: StackRuns) -> dict[str, Figure]:
    """Return the figures that compare stacks by name."""
    keys = telling(stacks)
    headline = headline_of(stacks)
    ranked = sorted((s for s in stacks if s.find(headline.ranked)), key=lambda stack: rank(headline, stack))
    named = {label(stack, keys): stack for stack in ranked[:MOST_STACKS]}
    if not named:
        return {}
    with rc_context(STYLE):
        found = {
            "stacks": ranking(named, headline),
            "nll_by_position": stacks_by_position(named, base),
            "learning_curve": learning_curves(named),
        }
    return {name: figure for name, figure in found.items() if figure is not None}


def of_table(panels: Mapping[str, Sequence[TableRow]]) -> Figure:
    """Return the figure of a sweep's table: what was measured beside a paper's figures, a panel for each column."""
    with rc_context(STYLE):
        return table_rows(panels)
