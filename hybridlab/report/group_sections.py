"""What else the layer groups of one stack were asked, a section each: probes, reach, memory, attention, interactions."""

from hybridlab.report.content import Picture, Section
from hybridlab.report.grids import Column, by_bucket, by_place, plain, section_of, signed, three_digits
from hybridlab.report.numbers import how
from hybridlab.report.stack_runs import StackRuns


def probes_section(stack: StackRuns) -> list[Section]:
    """Return the measures of a layer group that say most, side by side: those that were taken."""
    mixer, channel = ({"part": part, "block": None} for part in ("mixer", "channel"))
    asked = [
        Column("Mean knockout\nof mixers", "mean_knockout", mixer, signed),
        Column("Mean knockout\nof channel\nmixers", "mean_knockout", channel, signed),
        Column("Tuned lens\nNLL", "tuned_lens"),
        Column("Reach\n(tokens)", "reach_tokens", {"part": "mixer"}, plain),
        Column("Memory\n(tokens)", "memory_tokens", {}, plain),
        Column("Attention\n(tokens)", "attention_distance", {}, plain),
        Column("Block\ninfluence", "block_influence", {}, three_digits),
    ]
    table = by_place(
        stack,
        f"The layer groups asked otherwise. {how(stack.find('nll'))}",
        asked,
        "Mean knockout: the mixers add their mean over positions instead of nothing. Reach: the smallest block of tokens that "
        "costs nothing measurable. Memory: mean lag by gradient. Attention: mean distance read over.",
        groupings=("group", "mixer", "part"),
    )
    return section_of("Probes by layer group", table)


def layer_section(stack: StackRuns) -> list[Section]:
    """Return what was asked of each single layer."""
    asked = [
        Column("Lens\nNLL", "lens"),
        Column("Tuned lens\nNLL", "tuned_lens"),
        Column("Knockout of\nmixer", "knockout", {"part": "mixer"}, signed),
        Column("Knockout of\nchannel mixer", "knockout", {"part": "channel"}, signed),
        Column("Mean knockout\nof mixer", "mean_knockout", {"part": "mixer"}, signed),
        Column("Reach\n(tokens)", "reach_tokens", {"part": "mixer"}, plain),
    ]
    text = f"Each single layer, in nats/token. {how(stack.find('nll'))}"
    return section_of("Layer by layer", by_place(stack, text, asked, groupings=("layer",)), detail=True)


def reach_section(stack: StackRuns) -> list[Section]:
    """Return how far back each group needs to look: the loss when its mixers see blocks of so many tokens."""
    blocks = sorted(stack.values("reach", "block", slice=""))
    asked = [Column(f"{block:,}", "reach", {"part": "mixer", "block": block}, signed) for block in blocks]
    table = by_place(
        stack,
        f"Reach: NLL added (nats/token) when the layers' mixers see disjoint blocks of so many tokens. {how(stack.find('nll'))}",
        [*asked, Column("Reach\n(tokens)", "reach_tokens", {"part": "mixer"}, plain)],
    )
    picture = Picture("reach", "Reach: what it costs when a layer group sees no further back than its block.")
    return section_of("Reach", table, picture, detail=True)


def memory_section(stack: StackRuns) -> list[Section]:
    """Return where each group's gradient comes from, by lag."""
    asked = [Column(group, "influence", {"grouping": "group", "group": group}) for group in stack.groups]
    table = by_bucket(
        stack,
        "lag",
        f"Effective memory: the share of the gradient that comes from so many tokens back. {how(stack.find('nll'))}",
        asked,
        "Lag (tokens)",
    )
    picture = Picture("influence", "Effective memory: share of the gradient by lag.")
    return section_of("Effective memory", table, picture, detail=True)


def attention_section(stack: StackRuns) -> list[Section]:
    """Return how the attention mixers attend."""
    asked = [
        Column("Distance\n(tokens)", "attention_distance"),
        Column("Entropy\n(nats)", "attention_entropy"),
        Column("On the first\ntoken", "attention_first"),
    ]
    return section_of("Attention", by_place(stack, "Attention, mean over heads and positions.", asked), detail=True)


def interaction_section(stack: StackRuns) -> list[Section]:
    """Return what two groups cost together beyond the sum of their own."""
    asked = [
        Column(f"{title}", "interaction", {"part": part}, signed)
        for title, part in (("Mixers", "mixer"), ("Channel mixers", "channel"))
    ]
    table = by_place(
        stack,
        "Interaction: knockout of two layer groups at once minus the sum of their own (nats/token).",
        asked,
        "Below 0: one does the other's work when that is silent. Above 0: they need each other.",
    )
    return section_of("Interactions", table, detail=True)
