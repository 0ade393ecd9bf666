"""The figures that compare stacks, and the one that compares a sweep with a paper."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlab.report.content import PlottedRow
from hybridlab.report.figures.drawing import (
    POSITION,
    WHISKERS,
    arms,
    bucket_axes,
    curve,
    finish_curve,
    legend,
    line,
    look,
    new_axes,
)
from hybridlab.report.figures.style import COLOURS, WIDTH
from hybridlab.report.runs.headline import Headline
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.runs.swaps import paired_by_seed
from hybridlab.report.runs.titles import heading, measures_of


def ranking(named: dict[str, StackRuns], headline: Headline) -> Figure:
    """Draw dots with intervals, a row per stack, in the order given."""
    rows = [PlottedRow(name, None, stack.find(headline.ranked)) for name, stack in named.items()]
    return table_rows({heading(measures_of(named.values()), headline.ranked): rows})


def stacks_by_position(named: dict[str, StackRuns], base: StackRuns) -> Figure | None:
    """Draw each stack's NLL minus the base's over the position, as the NLLs themselves overlap."""
    if len(base.buckets) < 2:
        return None
    figure, axes = bucket_axes(base.buckets, POSITION, height=3 + 0.12 * len(named))
    axes.set_ylabel("NLL minus the base's (nats/token)")
    for index, (name, stack) in enumerate(named.items()):
        found = [paired_by_seed(base, stack, slice="position", bucket=bucket) for bucket in base.buckets]
        line(axes, base.buckets, found, f"{name} (base)" if stack is base else name, index)
    legend(figure)
    return figure


def learning_curves(named: dict[str, StackRuns]) -> Figure | None:
    """Draw lines of the validation NLL over the tokens trained on, a line per seed."""
    figure, axes = new_axes(height=3 + 0.12 * len(named))
    drawn = False
    for index, (name, stack) in enumerate(named.items()):
        for record in stack.finished:
            tokens, nll = curve(record, "validation")
            axes.plot(tokens, nll, linewidth=1.3, label=name, **look(index))
            drawn = drawn or bool(tokens)
    return finish_curve(figure, axes) if drawn else None


def table_rows(panels: Mapping[str, Sequence[PlottedRow]]) -> Figure:
    """Draw a panel per axis label: dots with intervals, hollow marks for a paper's figures.

    Several panels have the same rows and stand in two columns.
    """
    across = min(len(panels), 2)
    down, num_rows = -(-len(panels) // across), max(map(len, panels.values()))
    figure = Figure(figsize=(WIDTH, down * (0.8 + 0.3 * num_rows)), layout="constrained")
    all_axes = list(figure.subplots(down, across, squeeze=False, sharey=across > 1).flat)
    for axes, (words, rows) in zip(all_axes, panels.items(), strict=False):
        _table_panel(axes, rows, words)
    for axes in all_axes[len(panels) :]:
        axes.remove()
    if any(row.paper is not None for rows in panels.values() for row in rows):
        legend(figure)
    return figure


def _table_panel(axes: Axes, rows: Sequence[PlottedRow], words: str) -> None:
    shown = [(height, row.measured) for height, row in enumerate(rows) if row.measured]
    numbers = [number for _, number in shown]
    dots = {**WHISKERS, "fmt": "o", "color": COLOURS[0], "markersize": 5, "label": "measured"}
    axes.errorbar([number.value for number in numbers], [height for height, _ in shown], xerr=arms(numbers), **dots)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first on top
    axes.set_xlabel(words)
    axes.locator_params(axis="x", nbins=5)  # on half a page, more labels would overlap
    axes.grid(visible=False, axis="y")
    paper = [(height, row.paper) for height, row in enumerate(rows) if row.paper is not None]
    together = _overlap(rows)
    if paper and (together or len(paper) > 1):  # a single figure on a scale of its own compares with nothing
        hollow = {"facecolors": "none", "edgecolors": COLOURS[1], "marker": "D", "s": 30, "label": "paper"}
        beside = axes if together else _second_scale(axes)
        beside.scatter([number for _, number in paper], [height for height, _ in paper], zorder=3, **hollow)


def _overlap(rows: Sequence[PlottedRow]) -> bool:
    """Return whether the ranges overlap; if not, a common scale would hide the differences."""
    measured = [row.measured.value for row in rows if row.measured]
    paper = [row.paper for row in rows if row.paper is not None]
    return not (measured and paper) or (min(measured) <= max(paper) and min(paper) <= max(measured))


def _second_scale(axes: Axes) -> Axes:
    """Return axes over the given ones, with a scale on top in the colour of a paper's figures."""
    over = axes.twiny()
    over.grid(visible=False)
    over.spines["top"].set(visible=True, color=COLOURS[1])
    over.tick_params(axis="x", colors=COLOURS[1])
    over.set_xlabel("paper", color=COLOURS[1])
    return over
