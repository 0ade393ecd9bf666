"""What else the layer groups of one stack were asked, a section each: probes, reach, memory, attention, interactions."""

from hybridlab.report.content import Picture, Section
from hybridlab.report.runs.format import how
from hybridlab.report.runs.stack_runs import Place, StackRuns
from hybridlab.report.sections.grids import Column, by_bucket, by_place, plain, section_of, signed, three_digits

MIXER: dict[str, Place] = {"part": "mixer"}
CHANNEL: dict[str, Place] = {"part": "channel"}


def probes_section(stack: StackRuns) -> list[Section]:
    """Return the measures of a layer group that say most, side by side: those that were taken."""
    mean = "Mean knockout: the mixers add their mean over positions instead of nothing."
    asked = [
        Column("Mean knockout\nof mixers", "mean_knockout", MIXER, signed, mean),
        Column("Mean knockout\nof channel\nmixers", "mean_knockout", CHANNEL, signed, mean),
        Column(
            "Tuned lens\nNLL", "tuned_lens", meaning="Tuned lens: after an affine map fitted on the training split."
        ),
        Column(
            "Reach\n(tokens)", "reach_tokens", MIXER, plain, "Reach: the smallest block that costs nothing measurable."
        ),
        Column("Memory\n(tokens)", "memory_tokens", {}, plain, "Memory: mean lag by gradient."),
        Column("Attention\n(tokens)", "attention_distance", {}, plain, "Attention: mean distance read over."),
        Column("Block\ninfluence", "block_influence", {}, three_digits, "Block influence: 1 − cosine of the stream."),
    ]
    text = f"The layer groups asked otherwise. {how(stack.find('nll'))}"
    return section_of("Probes by layer group", by_place(stack, text, asked, groupings=("group", "mixer", "part")))


def layer_section(stack: StackRuns) -> list[Section]:
    """Return what was asked of each single layer."""
    asked = [
        Column("Lens\nNLL", "lens"),
        Column("Tuned lens\nNLL", "tuned_lens"),
        Column("Knockout of\nmixer", "knockout", MIXER, signed),
        Column("Knockout of\nchannel mixer", "knockout", CHANNEL, signed),
        Column("Mean knockout\nof mixer", "mean_knockout", MIXER, signed),
        Column("Reach\n(tokens)", "reach_tokens", MIXER, plain),
    ]
    text = f"Each single layer, in nats/token. {how(stack.find('nll'))}"
    return section_of("Layer by layer", by_place(stack, text, asked, groupings=("layer",)), detail=True)


def reach_section(stack: StackRuns) -> list[Section]:
    """Return how far back each group needs to look: the loss when its mixers see no further than blocks of so many tokens."""
    blocks = sorted(stack.values("reach", "block", slice=""))
    asked = [Column(f"{block:,}", "reach", {"part": "mixer", "block": block}, signed) for block in blocks]
    table = by_place(
        stack,
        f"Reach: NLL added (nats/token) when the layers' mixers look back one to two blocks of tokens. {how(stack.find('nll'))}",
        [*asked, Column("Reach\n(tokens)", "reach_tokens", MIXER, plain)],
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
    sign = "Above 0: one does the other's work when that is silent. Below 0: they need each other."
    asked = [
        Column("Mixers", "interaction", MIXER, signed, sign),
        Column("Channel mixers", "interaction", CHANNEL, signed, sign),
    ]
    text = "Interaction: knockout of two layer groups at once minus the sum of their own (nats/token)."
    return section_of("Interactions", by_place(stack, text, asked), detail=True)
