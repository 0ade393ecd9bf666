"""The figures that compare stacks, and those that compare a sweep with a paper."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlab.report.drawing import (
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
from hybridlab.report.headline import TITLES, Headline
from hybridlab.report.stack_runs import StackRuns
from hybridlab.report.statistics import Estimate
from hybridlab.report.style import COLOURS, WIDTH
from hybridlab.report.swaps import paired_by_seed


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
    legend(figure, axes)
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
    """Dots with intervals, a row each in the order given, and a hollow mark for a paper's figure: a panel for each axis."""
    num_rows = [len(rows) for rows in panels.values()]
    figure = Figure(figsize=(WIDTH, 0.8 * len(panels) + 0.3 * sum(num_rows)), layout="constrained")
    all_axes = figure.subplots(len(panels), squeeze=False, height_ratios=num_rows)[:, 0]
    for axes, (words, rows) in zip(all_axes, panels.items(), strict=True):
        _table_panel(axes, rows, words)
    with_paper = [axes for axes, rows in zip(all_axes, panels.values(), strict=True) if _has_paper(rows)]
    if with_paper:
        legend(figure, with_paper[0])
    return figure


def _table_panel(axes: Axes, rows: Sequence[TableRow], words: str) -> None:
    shown = [(place, row.measured) for place, row in enumerate(rows) if row.measured]
    numbers = [number for _, number in shown]
    dots = {**WHISKERS, "fmt": "o", "color": COLOURS[0], "markersize": 5, "label": "measured"}
    axes.errorbar([number.value for number in numbers], [place for place, _ in shown], xerr=arms(numbers), **dots)
    if _has_paper(rows):
        paper = [(place, row.paper) for place, row in enumerate(rows) if row.paper is not None]
        hollow = {"facecolors": "none", "edgecolors": COLOURS[1], "marker": "D", "s": 30, "label": "paper"}
        axes.scatter([number for _, number in paper], [place for place, _ in paper], zorder=3, **hollow)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first on top
    axes.set_xlabel(words)
    axes.grid(visible=False, axis="y")


def _has_paper(rows: Sequence[TableRow]) -> bool:
    return any(row.paper is not None for row in rows)
