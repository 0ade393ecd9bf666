"""Measures and tasks from outside hybridlab, tried before anything is trained."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from math import isfinite
from typing import Any

import torch

from hybridlab.errors import ConfigError
from hybridlab.evaluation.describe import described
from hybridlab.evaluation.evaluation import Evaluation
from hybridlab.evaluation.passes.sampling import first_sequences
from hybridlab.records.measurement import Measurement
from hybridlab.stack.model import Stack
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.check import check_slices

SEQUENCES = 2


def is_ours(thing: Any) -> bool:
    """Return whether a task or a measure comes with hybridlab, whose tests have tried it."""
    return type(thing).__module__.partition(".")[0] == "hybridlab"


def check_own(evaluation: Evaluation, task: Task, build_stack: Callable[[], Stack]) -> None:
    """Compare the slices of the user's own task with its batches, and take the user's own measures
    of an untrained stack.

    Whatever would fail after training is refused here, as a ConfigError. Nothing is built or drawn
    where task and measures come with hybridlab.
    """
    own = {key: node for key, node in evaluation.measures.items() if not is_ours(evaluation.built[key])}
    if not own and is_ours(task):
        return
    batches = [first_sequences(batch, SEQUENCES) for batch in islice(evaluation.batches(task), 1)]
    for batch in batches:
        check_slices(task, batch)
    stack = build_stack() if own else None
    for key, node in own.items():
        assert stack is not None
        alone = replace(evaluation, measures={key: node})
        try:
            _try(alone, stack, task, batches)
        except ConfigError:
            raise
        except Exception as error:
            name = type(alone.built[key]).__name__
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ConfigError(f"`evaluation.measures.{key}`: {name} fails on an untrained stack ({reason})") from error


def _try(evaluation: Evaluation, stack: Stack, task: Task, batches: Sequence[Batch]) -> None:
    (measure,) = evaluation.built.values()
    if not measure.applies_to(task):
        return
    taken = [
        found
        for found in evaluation.measure_on(batches, stack, task, torch.device("cpu"))
        if isinstance(found, Measurement) and found.measure == measure.name
    ]
    for found in taken:
        if found.unit != measure.unit:
            raise ValueError(f"unit={found.unit}, and the class declares {measure.unit}")
        if not isfinite(found.value):
            raise ValueError(f"{found.name} is {found.value}")
    described(taken, [measure], task)
