"""The report on one stack: quality by layer group first, then what stands behind it."""

from typing import Any

from hybridlab.records.record import RunRecord
from hybridlab.report.content import Fact, LayerBox, Picture, Section, Table
from hybridlab.report.runs.format import NOT_MEASURED, count, how, significant, with_interval
from hybridlab.report.runs.headline import TITLES, columns, headline_of
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.sections.facts import facts, flat
from hybridlab.report.sections.group_sections import (
    attention_section,
    interaction_section,
    layer_section,
    memory_section,
    probes_section,
    reach_section,
)
from hybridlab.report.sections.positions import position_sections
from hybridlab.report.sections.redundancy import redundancy_section
from hybridlab.report.sections.slice_sections import slice_sections
from hybridlab.report.sections.trials import tuning_section

DIFFERENCE = "Knockout: how much the NLL rises when these layers' mixers, or channel mixers, add nothing."


def headline(stack: StackRuns) -> tuple[Fact, ...]:
    """Return the few numbers that say how good the intact stack is, and what it costs."""
    seeds = stack.finished
    if not seeds:
        return ()
    quality = [name for name in columns(headline_of([stack]), [stack]) if stack.find(name)]
    costs = {
        "parameters": "parameters",
        "tokens_per_second": "training tokens/s",
        "peak_memory_bytes": "memory (bytes)",
    }
    found = {label: stack.find(name) for name, label in costs.items()}
    return (
        *(Fact(_in_words(name), with_interval(stack.find(name))) for name in quality),
        *([Fact("perplexity", with_interval(perplexity))] if (perplexity := stack.find("perplexity")) else []),
        *(Fact(label, count(cost.value if cost else None)) for label, cost in found.items()),
    )


def scored(record: RunRecord) -> str:
    """State on what the numbers rest: split, documents, tokens; window and stride where documents are read in windows."""
    stated = record.evaluation
    if not stated:
        return ""
    windows = limit = ""
    if stated.get("window"):
        windows = f", in windows of {stated['window']:,} tokens every {stated['stride']:,}"
        limit = f", the first {stated['limit']:,} of each document" if stated.get("limit") else ""
    return (
        f"Scored on the {stated['split']} split: {stated['documents']:,} documents, {stated['tokens']:,} tokens"
        f"{windows}{limit}. Every token is scored once."
    )


def sections(stack: StackRuns) -> list[Section]:
    """Return the parts of a report on one stack."""
    if not stack.finished:
        return [plan_section(stack), *facts(stack)]
    knockout = Picture("knockout", "Knockout by layer group, with 95 % intervals.")
    curve = Picture("learning_curve", "Training and validation NLL.")
    models = ngram_table(stack)
    return [
        Section(title="Quality by layer group", tables=(quality_table(stack),), pictures=(knockout,)),
        *probes_section(stack),
        *([Section(title="Against n-gram models", tables=(models,))] if models else []),
        *position_sections(stack),
        *slice_sections(stack),
        *layer_section(stack),
        *reach_section(stack),
        *memory_section(stack),
        *attention_section(stack),
        *interaction_section(stack),
        *redundancy_section(stack),
        *tuning_section([stack], []),
        *([Section(title="Training", pictures=(curve,), detail=True)] if has_curve(stack) else []),
        plan_section(stack),
        *facts(stack),
    ]


def quality_table(stack: StackRuns) -> Table:
    """Return the table that hybridlab is about: quality and cost of each layer group, then of each kind of mixer."""
    bodies: dict[str, list[tuple[str, ...]]] = {"group": [], "mixer": []}
    for (grouping, group), layers in stack.groupings.items():
        where = {"grouping": grouping, "group": group}
        costs = [stack.find(name, **where) for name in ("parameters", "flops", "state_bytes")]
        time = stack.find("milliseconds", **where)
        row = (
            group,
            layer_range([layer["layer"] for layer in layers]),
            mixers(layers) if grouping == "group" else f"{len(layers)} layer{'s' * (len(layers) > 1)}",
            *(count(cost.value if cost else None) for cost in costs),
            with_interval(stack.find("lens", **where)),
            *(with_interval(stack.find("knockout", **where, part=part), signed=True) for part in ("mixer", "channel")),
            significant(time.value if time else None, 3),
        )
        bodies[grouping].append(row)
    parts = [(part, *_knocked_out(stack, part)) for part in stack.parts]
    numbers = (
        "Params",
        "FLOPs",
        "State\nbytes",
        "Lens\nNLL",
        "Knockout of\nmixers",
        "Knockout of\nchannel\nmixers",
        "ms",
    )
    return Table(
        caption=f"Quality by layer group, then by kind of mixer. {how(stack.find('nll'))}",
        text=("Layer\ngroup", "Layers", "Mixers"),
        numbers=numbers,
        bodies=tuple(tuple(body) for body in (*bodies.values(), parts) if body),
        note=f"{DIFFERENCE} Lens: NLL read off the residual stream after the group. Both in nats/token.{_row_length(stack)}",
    )


def _knocked_out(stack: StackRuns, part: str) -> tuple[str, ...]:
    """Return the cells of a part of parallel layers: its costs and lens are not measured apart from its layers'."""
    effect = with_interval(stack.find("knockout", grouping="part", group=part, part="mixer"), signed=True)
    return "", "part", *[NOT_MEASURED] * 4, effect, NOT_MEASURED, NOT_MEASURED


def ngram_table(stack: StackRuns) -> Table | None:
    """Return the stack's bits per byte beside those of n-gram models, if these were measured."""
    models = ngrams(stack)
    if not models:
        return None
    return Table(
        caption="Bits per byte beside smoothed n-gram models of bytes, fitted on the same training split.",
        text=("Model",),
        numbers=("Bits per byte",),
        bodies=((("this stack", with_interval(stack.find("bits_per_byte"))),), tuple(models.items())),
    )


def ngrams(stack: StackRuns) -> dict[str, str]:
    """Return the bits per byte of the n-gram models that were scored beside a stack: no seed changes them."""
    found = {
        context: stack.find("ngram_bits_per_byte", slice="context", bucket=str(context)) for context in range(1, 10)
    }
    return {f"bytes, {context} of context": significant(bits.value) for context, bits in found.items() if bits}


def plan_section(stack: StackRuns) -> Section:
    """Return the expanded plan, a row per layer."""
    rows: dict[str, list[tuple[str, ...]]] = {}
    for layer in stack.first.plan:
        named = flat(layer.get("settings", {}))
        settings = ", ".join(f"{key}={value}" for key, value in named.items() if not key.endswith("_target_"))
        costs = (count(layer.get(name)) for name in ("parameters", "flops", "state_bytes"))
        row = (str(layer["layer"]), layer["group"], layer["mixer"], settings, _channel(layer.get("channel")), *costs)
        rows.setdefault(layer["group"], []).append(row)
    table = Table(
        caption="The expanded plan, nearest to the embedding first.",
        text=("Layer", "Group", "Mixer", "Settings", "Channel mixer"),
        numbers=("Parameters", "FLOPs", "State bytes"),
        bodies=tuple(map(tuple, rows.values())),
    )
    return Section(title="Plan", tables=(table,), detail=True)


def drawing(stack: StackRuns) -> tuple[tuple[str, tuple[LayerBox, ...]], ...]:
    """Return the layers to draw, by layer group."""
    kinds = [kind for grouping, kind in stack.groupings if grouping == "mixer"]
    return tuple(
        (group, tuple(LayerBox(layer["mixer"], kinds.index(layer["mixer"])) for layer in layers))
        for (grouping, group), layers in stack.groupings.items()
        if grouping == "group"
    )


def summary(stack: StackRuns) -> str:
    """Name the layer groups and their mixers in one line."""
    groups = ((group, layers) for (grouping, group), layers in stack.groupings.items() if grouping == "group")
    return " · ".join(f"{group}: {mixers(layers)}" for group, layers in groups)


def has_curve(stack: StackRuns) -> bool:
    """Say whether the runs kept a learning curve."""
    return any(row.step is not None for record in stack.finished for row in record.measurements)


def layer_range(indices: list[int]) -> str:
    """Write layer numbers shortly.

    >>> layer_range([0, 1, 2, 5])
    '0–2, 5'
    """
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def mixers(layers: list[dict[str, Any]]) -> str:
    """Name the mixers of some layers: `2 × full`, or in order where they differ."""
    names = [layer["mixer"] for layer in layers]
    return f"{len(names)} × {names[0]}" if len(set(names)) == 1 else ", ".join(names)


def _channel(channel: Any) -> str:
    if isinstance(channel, dict):
        channel = channel.get("_target_", "")
    return str(channel).rpartition(".")[2] if channel else NOT_MEASURED


def _row_length(stack: StackRuns) -> str:
    cost = stack.find("flops")
    return f" FLOPs, state and ms are for one row of {cost.tokens:,} tokens." if cost and cost.tokens else ""


def _in_words(measure: str) -> str:
    title = " ".join(TITLES[measure].split())
    return title if title.startswith("NLL") else title[0].lower() + title[1:]
