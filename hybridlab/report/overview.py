"""The head of a report on one stack: its layers, its quality and its cost in a few numbers."""

from hybridlab.records.record import RunRecord
from hybridlab.report.content import Fact, LayerBox
from hybridlab.report.runs.format import count, with_interval
from hybridlab.report.runs.headline import headline_of, quality, restated
from hybridlab.report.runs.layers import mixers
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.runs.titles import in_words

COSTS = {
    "parameters": "parameters",
    "tokens_per_second": "training tokens/s",
    "peak_memory_bytes": "memory (bytes)",
}


def facts(stack: StackRuns) -> tuple[Fact, ...]:
    """Return the quality of the intact stack, and what it costs to train."""
    if not stack.finished:
        return ()
    headline = headline_of([stack])
    shown = [*quality(headline, [stack]), *restated(headline, [stack])]
    costs = {label: stack.find(name) for name, label in COSTS.items()}
    return (
        *(Fact(in_words(stack.measures, name), with_interval(stack.find(name))) for name in shown if stack.find(name)),
        *(Fact(label, count(cost.value if cost else None)) for label, cost in costs.items()),
    )


def scored(record: RunRecord) -> str:
    """Return which split, documents and tokens were scored, and in which windows."""
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
