"""What a run costs, and what n-gram models achieve beside it, as measurements.

What fails is missing, with its reason, and takes nothing else along.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from hybridlab.evaluation.cost.layers import layer_milliseconds
from hybridlab.evaluation.cost.peak_memory import peak_memory_bytes
from hybridlab.evaluation.evaluation import Evaluation
from hybridlab.evaluation.measured import Measured, attempt, joined
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

_Groups = Mapping[tuple[str, str], Sequence[int]]  # grouping and group -> layers


def cost_measurements(stack: Stack, plan: list[dict[str, Any]], length: int, device: torch.device) -> Measured:
    """Return the cost of the whole stack, of each layer group and of each kind of mixer, for one
    sequence of `length`.
    """
    groups = {("stack", ""): tuple(range(len(plan))), **stack.plan.groupings()}
    return joined(
        [
            Measured(list(_counted(stack, plan, length, groups)), {}),
            attempt([Milliseconds.name], partial(_timed, stack, length, device, groups)),
        ]
    )


def training_measurements(tokens_per_second: int | float, device: torch.device) -> Measured:
    """Return the speed of training and the most memory that the run held."""
    speed = _measurement(TokensPerSecond, tokens_per_second, split="train")
    return joined(
        [
            Measured([speed], {}),
            attempt([PeakMemoryBytes.name], lambda: [_measurement(PeakMemoryBytes, peak_memory_bytes(device))]),
        ]
    )


def ngram_measurements(evaluation: Evaluation, task: Task) -> Measured:
    """Return the bits per byte of byte n-gram models on what the evaluation scores, by bytes of
    context.
    """
    return attempt([NgramBitsPerByte.name], partial(_ngrams, evaluation, task))


def _counted(stack: Stack, plan: list[dict[str, Any]], length: int, groups: _Groups) -> Iterator[Measurement]:
    """Yield what is counted, from the rows of the plan."""
    for (grouping, group), layers in groups.items():
        about = {"grouping": grouping, "group": group, "tokens": length}
        for cost in (Parameters, FLOPs, StateBytes):
            whole = grouping == "stack" and cost is Parameters
            value = parameters(stack) if whole else sum(plan[index][cost.name] for index in layers)
            yield _measurement(cost, value, **about)


def _timed(stack: Stack, length: int, device: torch.device, groups: _Groups) -> Iterator[Measurement]:
    """Yield the time of each group, measured on its layers."""
    times = [layer_milliseconds(layer, stack.plan.width, length, device) for layer in stack.layers]
    for (grouping, group), layers in groups.items():
        total = sum(times[index] for index in layers)
        yield _measurement(Milliseconds, total, grouping=grouping, group=group, tokens=length)


def _ngrams(evaluation: Evaluation, task: Task) -> Iterator[Measurement]:
    """Yield the bits per byte for each length of the context."""
    split = evaluation.split
    for context, bits in task.baselines(split, window=evaluation.window, limit=evaluation.limit).items():
        yield _measurement(NgramBitsPerByte, bits, split=split, slice=CONTEXT.name, bucket=str(context))


def _measurement(measure: type[Measure], value: int | float, **about: Any) -> Measurement:
    return Measurement(measure=measure.name, unit=measure.unit, value=value, **about)
