"""The figures that compare stacks, and those that compare a sweep with a paper."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
from hybridlab.report.runs.headline import TITLES, Headline
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.runs.statistics import Estimate
from hybridlab.report.runs.swaps import paired_by_seed


class TableRow(NamedTuple):
    """A row of a sweep's table as it is drawn."""

    name: str
    paper: float | None
    measured: Estimate | None


def ranking(named: dict[str, StackRuns], headline: Headline) -> Figure:
    """Dots with intervals, a row per stack, the best on top."""
    rows = [TableRow(name, None, stack.find(headline.ranked)) for name, stack in named.items()]
    return table_rows({" ".join(TITLES[headline.ranked].split()): rows})


def stacks_by_position(named: dict[str, StackRuns], base: StackRuns) -> Figure | None:
    """Lines over the position in the document: each stack's NLL minus the base's, since the NLLs themselves overlap."""
    if len(base.buckets) < 2:
        return None
    figure, axes = bucket_axes(base.buckets, POSITION, height=3 + 0.12 * len(named))
    axes.set_ylabel("NLL minus the base's (nats/token)")
    for place, (name, stack) in enumerate(named.items()):
        found = [paired_by_seed(base, stack, slice="position", bucket=bucket) for bucket in base.buckets]
        line(axes, base.buckets, found, f"{name} (base)" if stack is base else name, place)
    legend(figure)
    return figure


def learning_curves(named: dict[str, StackRuns]) -> Figure | None:
    """Lines over tokens trained on: the validation split, a line per seed."""
    figure, axes = new_axes(height=3 + 0.12 * len(named))
    drawn = False
    for place, (name, stack) in enumerate(named.items()):
        for record in stack.finished:
            tokens, nll = curve(record, "validation")
            axes.plot(tokens, nll, linewidth=1.3, label=name, **look(place))
            drawn = drawn or bool(tokens)
    return finish_curve(figure, axes) if drawn else None


def table_rows(panels: Mapping[str, Sequence[TableRow]]) -> Figure:
    """Dots with intervals, a row each in the order given, and a hollow mark for a paper's figure: a panel for each axis.

    Several panels stand two and two and have the same rows.
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


def _table_panel(axes: Axes, rows: Sequence[TableRow], words: str) -> None:
    shown = [(place, row.measured) for place, row in enumerate(rows) if row.measured]
    numbers = [number for _, number in shown]
    dots = {**WHISKERS, "fmt": "o", "color": COLOURS[0], "markersize": 5, "label": "measured"}
    axes.errorbar([number.value for number in numbers], [place for place, _ in shown], xerr=arms(numbers), **dots)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first on top
    axes.set_xlabel(words)
    axes.locator_params(axis="x", nbins=5)  # in half the page's width more would run into one another
    axes.grid(visible=False, axis="y")
    paper = [(place, row.paper) for place, row in enumerate(rows) if row.paper is not None]
    together = _overlap(rows)
    if paper and (together or len(paper) > 1):  # one figure on a scale of its own would say nothing
        hollow = {"facecolors": "none", "edgecolors": COLOURS[1], "marker": "D", "s": 30, "label": "paper"}
        beside = axes if together else _second_scale(axes)
        beside.scatter([number for _, number in paper], [place for place, _ in paper], zorder=3, **hollow)


def _overlap(rows: Sequence[TableRow]) -> bool:
    """Say whether one scale does for both: where levels do not compare, it would leave no differences to be seen."""
    measured = [row.measured.value for row in rows if row.measured]
    paper = [row.paper for row in rows if row.paper is not None]
    return not (measured and paper) or (min(measured) <= max(paper) and min(paper) <= max(measured))


def _second_scale(axes: Axes) -> Axes:
    """Return axes over the others whose scale stands above them, in the colour of a paper's figures."""
    over = axes.twiny()
    over.grid(visible=False)
    over.spines["top"].set(visible=True, color=COLOURS[1])
    over.tick_params(axis="x", colors=COLOURS[1])
    over.set_xlabel("paper", color=COLOURS[1])
    return over
