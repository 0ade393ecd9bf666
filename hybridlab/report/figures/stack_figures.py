"""The figures of one stack."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hybridlab.report.figures.drawing import WHISKERS, arms, bucket_axes, curve, finish_curve, legend, line, new_axes
from hybridlab.report.figures.style import COLOURS, INK, WIDTH
from hybridlab.report.runs.similarities import similarities
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.runs.statistics import Estimate

ABOVE: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "fontsize": 8}


def knockout(stack: StackRuns) -> Figure | None:
    """Draw the NLL added by zero ablation of mixers and channel mixers, by group and kind."""
    where = [key for key in stack.groupings if stack.find("knockout", grouping=key[0], group=key[1], part="mixer")]
    if not where:
        return None
    figure, axes = new_axes(height=3.2)
    for shift, part, colour in ((-0.2, "mixer", COLOURS[0]), (0.2, "channel", COLOURS[1])):
        bars = [
            (x + shift, found)
            for x, (grouping, group) in enumerate(where)
            if (found := stack.find("knockout", grouping=grouping, group=group, part=part))
        ]
        if not bars:
            continue
        named = {"mixer": "mixers ablated", "channel": "channel mixers ablated"}[part]
        at, found = [x for x, _ in bars], [number for _, number in bars]
        axes.bar(at, [number.value for number in found], width=0.38, color=colour, label=named)
        axes.errorbar(at, [number.value for number in found], yerr=arms(found), **WHISKERS)
    axes.set_xticks(range(len(where)), [group for _, group in where])
    declared = sum(grouping == "group" for grouping, _ in where)
    if 0 < declared < len(where):
        axes.axvline(declared - 0.5, color=INK, linewidth=0.6, linestyle=":")
        for x, words in ((declared - 1, "layer groups"), (declared, "kinds of mixer")):
            side = "right" if x < declared else "left"
            axes.annotate(words, (declared - 0.5, 1.02), (-6 if side == "right" else 6, 0), ha=side, **ABOVE)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_ylabel("added NLL (nats/token)")
    axes.grid(visible=False, axis="x")
    legend(figure)
    return figure


def by_slice(stack: StackRuns, name: str, words: str) -> Figure | None:
    """Draw the NLL by bucket of a slice: intact, and with each layer group's mixers ablated."""
    buckets = stack.buckets_of(name, "nll")
    if len(buckets) < 2:
        return None
    figure, axes = bucket_axes(buckets, words)
    intact = [stack.find("nll", slice=name, bucket=bucket) for bucket in buckets]
    line(axes, buckets, intact, "intact", 0, band=True)
    for index, group in enumerate(stack.groups, start=1):
        where = {"grouping": "group", "group": group, "part": "mixer", "slice": name}
        added = [stack.find("knockout", **where, bucket=bucket) for bucket in buckets]
        ablated = [Estimate(a.value + b.value) if a and b else None for a, b in zip(intact, added, strict=True)]
        if any(ablated):
            line(axes, buckets, ablated, f"{group} ablated", index)
    legend(figure)
    return figure


def reach(stack: StackRuns) -> Figure | None:
    """Draw the NLL added by each look-back, a line per group, or per kind if there are none."""
    measured = set(stack.values("reach", "grouping", slice=""))
    grouping = next((name for name in ("group", "mixer") if name in measured), None)
    if grouping is None:
        return None
    blocks = sorted(stack.values("reach", "block", slice="", grouping=grouping))
    figure, axes = bucket_axes([f"{block:,}" for block in blocks], "block that the mixers see (tokens)")
    axes.set_ylabel("added NLL (nats/token)")
    for index, group in enumerate(stack.values("reach", "group", slice="", grouping=grouping)):
        where = {"grouping": grouping, "group": group, "part": "mixer"}
        found = [stack.find("reach", **where, block=block) for block in blocks]
        line(axes, [str(block) for block in blocks], found, group, index, band=True)
    axes.axhline(0, color=INK, linewidth=0.8)
    legend(figure)
    return figure


def influence(stack: StackRuns) -> Figure | None:
    """Draw the share of the gradient through a group's mixers by lag."""
    buckets = stack.buckets_of("lag", "influence")
    if not buckets:
        return None
    figure, axes = bucket_axes(buckets, "lag (tokens)")
    axes.set_ylabel("share of the gradient")
    for index, group in enumerate(stack.groups):
        where = {"grouping": "group", "group": group, "slice": "lag"}
        found = [stack.find("influence", **where, bucket=bucket) for bucket in buckets]
        if any(found):
            line(axes, buckets, found, group, index, band=True)
    axes.set_ylim(bottom=0)
    legend(figure)
    return figure


def redundancy(stack: StackRuns) -> Figure | None:
    """Draw block influence by layer, in the groups' colours, and the groups' CKA as a matrix."""
    found = [
        (layer, stack.find("block_influence", grouping="layer", group=str(layer["layer"])))
        for layer in stack.first.plan
    ]
    bars = [(layer, number) for layer, number in found if number]
    similar = similarities(stack)
    if not bars:
        return None
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 1.6)) if similar else (figure.add_subplot(), None)
    for index, group in enumerate(stack.groups):
        its = [(layer["layer"], number) for layer, number in bars if layer["group"] == group]
        at, numbers = [x for x, _ in its], [number for _, number in its]
        left.bar(at, [number.value for number in numbers], width=0.7, color=COLOURS[index % len(COLOURS)], label=group)
        left.errorbar(at, [number.value for number in numbers], yerr=arms(numbers), **WHISKERS)
    left.set_xticks([layer["layer"] for layer, _ in bars], [f"{layer['layer']}\n{layer['mixer']}" for layer, _ in bars])
    left.set_ylabel("block influence")
    left.grid(visible=False, axis="x")
    if right is not None:
        _matrix(right, stack.groups, similar)
    legend(figure)
    return figure


def learning_curve(stack: StackRuns) -> Figure | None:
    """Draw training and validation NLL over the tokens trained on, a line per seed."""
    figure, axes = new_axes(height=2.9)
    drawn = False
    for record in stack.finished:
        for split, colour, width, marker in (("train", COLOURS[4], 0.9, ""), ("validation", COLOURS[0], 1.6, "o")):
            tokens, nll = curve(record, split)
            if tokens:
                named = f"{split}ing" if split == "train" else split
                axes.plot(tokens, nll, color=colour, linewidth=width, marker=marker, markersize=3.5, label=named)
                drawn = True
    return finish_curve(figure, axes) if drawn else None


def _matrix(axes: Axes, groups: Sequence[str], similar: dict[tuple[str, str], float]) -> None:
    """Draw a square for each pair of groups, darker the more similar they are."""
    for row, one in enumerate(groups):
        for column, other in enumerate(groups):
            value = similar.get((one, other))
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
