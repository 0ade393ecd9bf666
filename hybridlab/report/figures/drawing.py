"""The parts that figures share: axes, lines with bands, error bars, the legend."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from hybridlab.records.record import RunRecord
from hybridlab.report.figures.style import COLOURS, INK, MARKERS, WIDTH
from hybridlab.report.runs.statistics import Estimate

POSITION = "position in the document (tokens)"
WHISKERS: dict[str, Any] = {"fmt": "none", "ecolor": INK, "elinewidth": 1.1, "capsize": 2.5}


def new_axes(height: float) -> tuple[Figure, Axes]:
    """Return a figure of the page's width with one pair of axes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def bucket_axes(buckets: Sequence[str], words: str, height: float = 3.2) -> tuple[Figure, Axes]:
    """Return axes with a tick for each bucket."""
    figure, axes = new_axes(height)
    axes.set_xticks(range(len(buckets)), [bucket.replace("-", "–") for bucket in buckets])
    axes.set_xlabel(words)
    axes.set_ylabel("NLL (nats/token)")
    return figure, axes


def line(axes: Axes, buckets: Sequence[str], found: list[Any], name: str, index: int, *, band: bool = False) -> None:
    """Draw one line over the buckets, with its interval as a band."""
    points = [(x, number) for x, number in zip(range(len(buckets)), found, strict=True) if number]
    x, numbers = [x for x, _ in points], [number for _, number in points]
    marker = MARKERS[index % len(MARKERS)]
    axes.plot(x, [number.value for number in numbers], marker=marker, markersize=4, label=name, **look(index))
    if band and all(number.low is not None for number in numbers):
        low, high = [number.low for number in numbers], [number.high for number in numbers]
        axes.fill_between(x, low, high, color=COLOURS[index % len(COLOURS)], alpha=0.18, linewidth=0)


def curve(record: RunRecord, split: str) -> tuple[list[int], list[float]]:
    """Return a run's learning curve on a split: the tokens trained on, and the NLL at each."""
    found = (each for each in record.measurements if (each.measure, each.split) == ("nll", split))
    points = sorted((each for each in found if each.step is not None), key=lambda each: each.step or 0)
    return [each.tokens or 0 for each in points], [each.value for each in points]


def finish_curve(figure: Figure, axes: Axes) -> Figure:
    """Label a learning curve."""
    axes.set_xlabel("tokens trained on")
    axes.set_ylabel("NLL (nats/token)")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    legend(figure)
    return figure


def legend(figure: Figure) -> None:
    """Draw a legend above all axes, with each name once."""
    once: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        once |= dict(zip(labels, handles, strict=True))
    figure.legend(list(once.values()), list(once), loc="outside upper left", ncols=2 if max(map(len, once)) > 20 else 5)


def arms(found: Sequence[Estimate]) -> list[list[float]]:
    """Return the lengths of error bars below and above; matplotlib draws none for NaN."""
    nothing = float("nan")
    below = [nothing if number.low is None else max(0.0, number.value - number.low) for number in found]
    above = [nothing if number.high is None else max(0.0, number.high - number.value) for number in found]
    return [below, above]


def look(index: int) -> dict[str, Any]:
    """Return colour and dashes of a line by its index."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": ("-", "--")[index // len(COLOURS) % 2]}
