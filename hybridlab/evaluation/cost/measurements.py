"""What a run costs, and what n-gram models achieve beside it, as measurements."""

from collections.abc import Iterator
from typing import Any

import torch

from hybridlab.evaluation.cost.layers import layer_milliseconds
from hybridlab.evaluation.cost.peak_memory import peak_memory_bytes
from hybridlab.evaluation.evaluation import Evaluation
from hybridlab.evaluation.measures.base import Measure
from hybridlab.evaluation.measures.costs import (
    CONTEXT,
    FLOPs,
    Milliseconds,
    NgramBitsPerByte,
    Parameters,
    PeakMemoryBytes,
    StateBytes,
    TokensPerSecond,
)
from hybridlab.records.measurement import Measurement
from hybridlab.stack.measure import parameters
from hybridlab.stack.model import Stack
from hybridlab.tasks.base import Task


def cost_measurements(
    stack: Stack, plan: list[dict[str, Any]], length: int, device: torch.device
) -> Iterator[Measurement]:
    """Yield the cost of the whole stack, of each layer group and of each kind of mixer, for one
    sequence of `length`.
    """
    times = [layer_milliseconds(layer, stack.plan.width, length, device) for layer in stack.layers]
    everything = tuple(range(len(plan)))
    for (grouping, group), layers in {("stack", ""): everything, **stack.plan.groupings()}.items():
        about = {"grouping": grouping, "group": group, "tokens": length}
        for cost in (Parameters, FLOPs, StateBytes):
            whole = grouping == "stack" and cost is Parameters
            value = parameters(stack) if whole else sum(plan[index][cost.name] for index in layers)
            yield _measurement(cost, value, **about)
        yield _measurement(Milliseconds, sum(times[index] for index in layers), **about)


def training_measurements(tokens_per_second: int | float, device: torch.device) -> Iterator[Measurement]:
    """Yield the speed of training and the most memory that the run held."""
    yield _measurement(TokensPerSecond, tokens_per_second, split="train")
    yield _measurement(PeakMemoryBytes, peak_memory_bytes(device))


def ngram_measurements(evaluation: Evaluation, task: Task) -> Iterator[Measurement]:
    """Yield the bits per byte of byte n-gram models on what the evaluation scores, by bytes of
    context.
    """
    split = evaluation.split
    for context, bits in task.baselines(split, window=evaluation.window, limit=evaluation.limit).items():
        yield _measurement(NgramBitsPerByte, bits, split=split, slice=CONTEXT.name, bucket=str(context))


def _measurement(measure: type[Measure], value: int | float, **about: Any) -> Measurement:
    return Measurement(measure=measure.name, unit=measure.unit, value=value, **about)
