"""The figures by name: the page has them as SVG, Weights & Biases as images."""

from collections.abc import Mapping, Sequence
from functools import partial

from matplotlib import rc_context
from matplotlib.figure import Figure

from hybridlab.records.record import RunRecord
from hybridlab.report.content import ComparisonFigures, PlottedRow, StackFigures, TableFigure
from hybridlab.report.content import of_table as of_table_number
from hybridlab.report.figures.comparison_figures import learning_curves, ranking, stacks_by_position, table_rows
from hybridlab.report.figures.drawing import POSITION
from hybridlab.report.figures.stack_figures import (
    by_slice,
    influence,
    knockout,
    learning_curve,
    reach,
    redundancy,
)
from hybridlab.report.figures.style import STYLE
from hybridlab.report.runs.choices import distinguishing_keys, label
from hybridlab.report.runs.headline import headline_of, ranked
from hybridlab.report.runs.stack_runs import StackRuns

MOST_STACKS = 12  # more lines cannot be distinguished


def figures(record: RunRecord) -> dict[str, Figure]:
    """Return the figures of one run by name, without those for which nothing was measured."""
    return of_stack(StackRuns(record.choices, (record,)))


def draw(data: StackFigures | ComparisonFigures | TableFigure) -> dict[str, Figure]:
    """Return the figures of a report by name."""
    match data:
        case StackFigures(stack):
            return of_stack(stack)
        case ComparisonFigures(tables):
            return {
                of_table_number(name, number): figure
                for number, (stacks, base) in enumerate(tables, start=1)
                for name, figure in of_stacks(stacks, base).items()
            }
        case TableFigure(panels):
            return {"table": of_table(panels)}


def of_stack(stack: StackRuns) -> dict[str, Figure]:
    """Return the figures of one stack by name."""
    drawn = {
        "knockout": knockout,
        "nll_by_position": partial(by_slice, name="position", words=POSITION),
        "nll_by_distance": partial(by_slice, name="distance", words="distance to what determines the target (tokens)"),
        "reach": reach,
        "influence": influence,
        "redundancy": redundancy,
        "learning_curve": learning_curve,
    }
    with rc_context(STYLE):
        found = {name: draw(stack) for name, draw in drawn.items()}
    return {name: figure for name, figure in found.items() if figure is not None}


def of_stacks(stacks: Sequence[StackRuns], base: StackRuns) -> dict[str, Figure]:
    """Return the figures that compare stacks, by name."""
    keys = distinguishing_keys(stacks)
    headline = headline_of(stacks)
    measured = [stack for stack in ranked(stacks) if stack.find(headline.ranked)]
    named = {label(stack, keys): stack for stack in measured[:MOST_STACKS]}
    if not named:
        return {}
    with rc_context(STYLE):
        found = {
            "stacks": ranking(named, headline),
            "nll_by_position": stacks_by_position(named, base),
            "learning_curve": learning_curves(named),
        }
    return {name: figure for name, figure in found.items() if figure is not None}


def of_table(panels: Mapping[str, Sequence[PlottedRow]]) -> Figure:
    """Return the figure of a sweep's table: a panel per column, with a paper's numbers."""
    with rc_context(STYLE):
        return table_rows(panels)
