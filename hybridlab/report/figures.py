"""The figures, as matplotlib objects: for the page as SVG, for Weights & Biases as images."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter

from hybridlab.records.record import RunRecord
from hybridlab.report.choices import label, telling
from hybridlab.report.headline import TITLES, Headline, headline_of, rank
from hybridlab.report.redundancy import similarities
from hybridlab.report.stack_runs import StackRuns
from hybridlab.report.statistics import Estimate
from hybridlab.report.style import COLOURS, INK, MARKERS, STYLE, WIDTH
from hybridlab.report.swaps import paired_by_seed

POSITION = "position in the document (tokens)"
MOST_STACKS = 12  # more lines than this can't be told apart


class TableRow(NamedTuple):
    """A row of a sweep's table as it is drawn."""

    name: str
    paper: float | None
    measured: Estimate | None


def figures(record: RunRecord) -> dict[str, Figure]:
    """Return the figures of one run by name; one that nothing was measured for is left out."""
    return of_stack(StackRuns(record.choices, (record,)))


def of_stack(stack: StackRuns) -> dict[str, Figure]:
    """Return the figures of one stack by name."""
    drawn = {
        "knockout": _knockout,
        "nll_by_position": partial(_probes_by_slice, name="position", words=POSITION),
        "nll_by_distance": partial(
            _probes_by_slice, name="distance", words="distance to what tells the target (tokens)"
        ),
        "reach": _reach,
        "influence": _influence,
        "redundancy": _redundancy,
        "learning_curve": _learning_curve,
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
            "stacks": _ranking(named, headline),
            "nll_by_position": _stacks_by_position(named, base),
            "learning_curve": _learning_curves(named),
        }
    return {name: figure for name, figure in found.items() if figure is not None}


def of_table(rows: Sequence[TableRow], measure: str) -> Figure:
    """Draw a sweep's table: what was measured with its interval, and a paper's figure beside it."""
    with rc_context(STYLE):
        figure, axes = _axes(height=0.9 + 0.3 * len(rows))
        places = range(len(rows))
        shown = [(place, row.measured) for place, row in enumerate(rows) if row.measured]
        dots = {**_WHISKERS, "fmt": "o", "color": COLOURS[0], "markersize": 5, "label": "measured"}
        numbers = [number for _, number in shown]
        axes.errorbar([n.value for n in numbers], [place for place, _ in shown], xerr=_errors(numbers), **dots)
        paper = [(place, row.paper) for place, row in enumerate(rows) if row.paper is not None]
        if paper:
            hollow = {"facecolors": "none", "edgecolors": COLOURS[1], "marker": "D", "s": 30, "label": "paper"}
            axes.scatter([figure for _, figure in paper], [place for place, _ in paper], zorder=3, **hollow)
        axes.set_yticks(places, [row.name for row in rows])
        axes.invert_yaxis()
        axes.margins(y=0.5 / len(rows))
        axes.set_xlabel(measure)
        axes.grid(visible=False, axis="y")
        _legend(figure, axes)
    return figure


def _knockout(stack: StackRuns) -> Figure | None:
    """Bars by layer group and kind of mixer: NLL added by silencing the mixers, and the channel mixers."""
    where = [key for key in stack.groupings if stack.find("knockout", grouping=key[0], group=key[1], part="mixer")]
    if not where:
        return None
    figure, axes = _axes(height=3.2)
    for shift, part, colour in ((-0.2, "mixer", COLOURS[0]), (0.2, "channel", COLOURS[1])):
        bars = [
            (place + shift, found)
            for place, (grouping, group) in enumerate(where)
            if (found := stack.find("knockout", grouping=grouping, group=group, part=part))
        ]
        if not bars:
            continue
        named = {"mixer": "mixers silent", "channel": "channel mixers silent"}[part]
        places, found = [place for place, _ in bars], [number for _, number in bars]
        axes.bar(places, [number.value for number in found], width=0.38, color=colour, label=named)
        axes.errorbar(places, [number.value for number in found], yerr=_errors(found), **_WHISKERS)
    axes.set_xticks(range(len(where)), [group for _, group in where])
    declared = sum(grouping == "group" for grouping, _ in where)
    if 0 < declared < len(where):
        axes.axvline(declared - 0.5, color=INK, linewidth=0.6, linestyle=":")
        for place, words in ((declared - 1, "layer groups"), (declared, "kinds of mixer")):
            side = "right" if place < declared else "left"
            axes.annotate(words, (declared - 0.5, 1.02), (-6 if side == "right" else 6, 0), ha=side, **_ABOVE)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_ylabel("added NLL (nats/token)")
    axes.grid(visible=False, axis="x")
    _legend(figure, axes)
    return figure


def _probes_by_slice(stack: StackRuns, name: str, words: str) -> Figure | None:
    """Lines over the buckets of a slice: the intact stack, and each layer group's mixers silent."""
    buckets = stack.buckets_of(name, "nll")
    if len(buckets) < 2:
        return None
    figure, axes = _bucket_axes(buckets, words)
    intact = [stack.find("nll", slice=name, bucket=bucket) for bucket in buckets]
    _line(axes, buckets, intact, "intact", 0, band=True)
    for place, group in enumerate(stack.groups, start=1):
        where = {"grouping": "group", "group": group, "part": "mixer", "slice": name}
        added = [stack.find("knockout", **where, bucket=bucket) for bucket in buckets]
        silent = [Estimate(a.value + b.value) if a and b else None for a, b in zip(intact, added, strict=True)]
        if any(silent):
            _line(axes, buckets, silent, f"{group} silent", place)
    _legend(figure, axes)
    return figure


def _reach(stack: StackRuns) -> Figure | None:
    """Lines over the width of the blocks that a group's mixers see."""
    blocks = sorted(stack.values("reach", "block", slice=""))
    if not blocks:
        return None
    figure, axes = _bucket_axes([f"{block:,}" for block in blocks], "block that the mixers see (tokens)")
    axes.set_ylabel("added NLL (nats/token)")
    for place, group in enumerate(stack.groups):
        where = {"grouping": "group", "group": group, "part": "mixer"}
        found = [stack.find("reach", **where, block=block) for block in blocks]
        if any(found):
            _line(axes, [str(block) for block in blocks], found, group, place, band=True)
    axes.axhline(0, color=INK, linewidth=0.8)
    _legend(figure, axes)
    return figure


def _influence(stack: StackRuns) -> Figure | None:
    """Lines over the lag: where the gradient through a group's mixers comes from."""
    buckets = stack.buckets_of("lag", "influence")
    if not buckets:
        return None
    figure, axes = _bucket_axes(buckets, "lag (tokens)")
    axes.set_ylabel("share of the gradient")
    for place, group in enumerate(stack.groups):
        where = {"grouping": "group", "group": group, "slice": "lag"}
        found = [stack.find("influence", **where, bucket=bucket) for bucket in buckets]
        if any(found):
            _line(axes, buckets, found, group, place, band=True)
    axes.set_ylim(bottom=0)
    _legend(figure, axes)
    return figure


def _redundancy(stack: StackRuns) -> Figure | None:
    """Bars of block influence, a bar per layer in its group's colour; beside them the groups' CKA as a matrix."""
    found = [
        (layer, stack.find("block_influence", grouping="layer", group=str(layer["layer"])))
        for layer in stack.first.plan
    ]
    bars = [(layer, number) for layer, number in found if number]
    alike = similarities(stack)
    if not bars:
        return None
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 1.6)) if alike else (figure.add_subplot(), None)
    for place, group in enumerate(stack.groups):
        its = [(layer["layer"], number) for layer, number in bars if layer["group"] == group]
        places, numbers = [place for place, _ in its], [number for _, number in its]
        left.bar(
            places, [number.value for number in numbers], width=0.7, color=COLOURS[place % len(COLOURS)], label=group
        )
        left.errorbar(places, [number.value for number in numbers], yerr=_errors(numbers), **_WHISKERS)
    left.set_xticks([layer["layer"] for layer, _ in bars], [f"{layer['layer']}\n{layer['mixer']}" for layer, _ in bars])
    left.set_ylabel("block influence")
    left.grid(visible=False, axis="x")
    if right is not None:
        _matrix(right, stack.groups, alike)
    _legend(figure, left)
    return figure


def _matrix(axes: Axes, groups: Sequence[str], alike: dict[tuple[str, str], float]) -> None:
    """Draw a square for each pair of groups, as dark as they are alike."""
    for row, one in enumerate(groups):
        for column, other in enumerate(groups):
            value = alike.get((one, other))
            if value is not None:
                at = (column - 0.48, row - 0.48)
                axes.add_patch(Rectangle(at, 0.96, 0.96, color=COLOURS[0], alpha=0.75 * max(0.0, value), linewidth=0))
                axes.text(column, row, f"{value:.2f}", ha="center", va="center")
    axes.set(xlim=(-0.5, len(groups) - 0.5), ylim=(len(groups) - 0.5, -0.5), aspect="equal", title="linear CKA")
    axes.set_xticks(range(len(groups)), groups)
    axes.set_yticks(range(len(groups)), groups)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _learning_curve(stack: StackRuns) -> Figure | None:
    """Lines over tokens trained on, one per seed: training rows and the validation split."""
    figure, axes = _axes(height=2.9)
    drawn = False
    for record in stack.finished:
        for split, colour, width, marker in (("train", COLOURS[4], 0.9, ""), ("validation", COLOURS[0], 1.6, "o")):
            tokens, nll = _curve(record, split)
            if tokens:
                named = f"{split}ing" if split == "train" else split
                axes.plot(tokens, nll, color=colour, linewidth=width, marker=marker, markersize=3.5, label=named)
                drawn = True
    return _finish_curve(figure, axes) if drawn else None


def _ranking(named: dict[str, StackRuns], headline: Headline) -> Figure:
    """Dots with intervals, a row per stack, the best on top."""
    figure, axes = _axes(height=0.8 + 0.3 * len(named))
    found = [_number(stack.find(headline.ranked)) for stack in named.values()]
    places = range(len(found))
    values = [number.value for number in found]
    axes.errorbar(
        values, places, xerr=_errors(found), **{**_WHISKERS, "fmt": "o", "color": COLOURS[0], "markersize": 5}
    )
    axes.set_yticks(places, list(named))
    axes.invert_yaxis()
    axes.margins(y=0.5 / len(found))
    axes.set_xlabel(" ".join(TITLES[headline.ranked].split()))
    axes.grid(visible=False, axis="y")
    return figure


def _stacks_by_position(named: dict[str, StackRuns], base: StackRuns) -> Figure | None:
    """Lines over the position in the document: each stack's NLL minus the base's, since the NLLs themselves overlap."""
    if len(base.buckets) < 2:
        return None
    figure, axes = _bucket_axes(base.buckets, POSITION, height=3 + 0.12 * len(named))
    axes.set_ylabel("NLL minus the base's (nats/token)")
    for place, (name, stack) in enumerate(named.items()):
        found = [paired_by_seed(base, stack, **_at(bucket)) for bucket in base.buckets]
        _line(axes, base.buckets, found, f"{name} (base)" if stack is base else name, place)
    _legend(figure, axes)
    return figure


def _learning_curves(named: dict[str, StackRuns]) -> Figure | None:
    figure, axes = _axes(height=3 + 0.12 * len(named))
    drawn = False
    for place, (name, stack) in enumerate(named.items()):
        for record in stack.finished:
            tokens, nll = _curve(record, "validation")
            axes.plot(tokens, nll, linewidth=1.3, label=name, **_look(place))
            drawn = drawn or bool(tokens)
    return _finish_curve(figure, axes) if drawn else None


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _bucket_axes(buckets: Sequence[str], words: str, height: float = 3.2) -> tuple[Figure, Axes]:
    figure, axes = _axes(height)
    axes.set_xticks(range(len(buckets)), [bucket.replace("-", "–") for bucket in buckets])
    axes.set_xlabel(words)
    axes.set_ylabel("NLL (nats/token)")
    return figure, axes


def _line(axes: Axes, buckets: Sequence[str], found: list[Any], name: str, place: int, *, band: bool = False) -> None:
    """Draw one line over the buckets, with its interval as a band."""
    points = [(x, number) for x, number in zip(range(len(buckets)), found, strict=True) if number]
    x, numbers = [x for x, _ in points], [number for _, number in points]
    marker = MARKERS[place % len(MARKERS)]
    axes.plot(x, [number.value for number in numbers], marker=marker, markersize=4, label=name, **_look(place))
    if band and all(number.low is not None for number in numbers):
        low, high = [number.low for number in numbers], [number.high for number in numbers]
        axes.fill_between(x, low, high, color=COLOURS[place % len(COLOURS)], alpha=0.18, linewidth=0)


def _curve(record: RunRecord, split: str) -> tuple[list[int], list[float]]:
    rows = [row for row in record.measurements if row.step is not None and (row.measure, row.split) == ("nll", split)]
    rows = sorted(rows, key=lambda row: row.step or 0)
    return [row.tokens or 0 for row in rows], [row.value for row in rows]


def _finish_curve(figure: Figure, axes: Axes) -> Figure:
    axes.set_xlabel("tokens trained on")
    axes.set_ylabel("NLL (nats/token)")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    _legend(figure, axes)
    return figure


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(list(once.values()), list(once), loc="outside upper left", ncols=2 if max(map(len, once)) > 20 else 5)


def _errors(found: Sequence[Estimate]) -> list[list[float]]:
    """Return the arms of error bars; matplotlib wants lengths, and draws none for NaN."""
    nothing = float("nan")
    below = [nothing if number.low is None else max(0.0, number.value - number.low) for number in found]
    above = [nothing if number.high is None else max(0.0, number.high - number.value) for number in found]
    return [below, above]


def _look(place: int) -> dict[str, Any]:
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": ("-", "--")[place // len(COLOURS) % 2]}


def _number(found: Estimate | None) -> Estimate:
    assert found is not None
    return found


def _at(bucket: str) -> dict[str, Any]:
    return {"slice": "position", "bucket": bucket}


_WHISKERS: dict[str, Any] = {"fmt": "none", "ecolor": INK, "elinewidth": 1.1, "capsize": 2.5}
_ABOVE: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "fontsize": 8}
