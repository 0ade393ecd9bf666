"""Checks of users' own measures, tasks and slices, before anything is trained."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from math import isfinite
from typing import Any

import torch

from hybridlab.errors import ConfigError, near_miss, reason_of
from hybridlab.evaluation.describe import ALWAYS, described
from hybridlab.evaluation.evaluation import Evaluation
from hybridlab.evaluation.measured import Measured
from hybridlab.evaluation.measures.base import Measure
from hybridlab.evaluation.passes.sampling import first_sequences
from hybridlab.records.measurement import Measurement
from hybridlab.stack.model import Stack
from hybridlab.tasks import slices
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.check import check_slices

SEQUENCES = 2
SHARED = {each.name for each in vars(slices).values() if isinstance(each, slices.Slice)}


def is_ours(thing: Any) -> bool:
    """Return whether a task or a measure comes with hybridlab, whose tests have tried it."""
    return type(thing).__module__.partition(".")[0] == "hybridlab"


def check_own(evaluation: Evaluation, task: Task, build_stack: Callable[[], Stack]) -> None:
    """Check the names in `evaluation.slices`, the slices of the user's own task against a batch,
    and the user's own measures on an untrained stack.

    Whatever would fail after training is refused here, as a ConfigError. Nothing is built or drawn
    where task and measures come with hybridlab.
    """
    check_slice_names(evaluation, task)
    measures = {**evaluation.of_task, **evaluation.built}
    own = {key: measure for key, measure in measures.items() if not is_ours(measure)}
    if not own and is_ours(task):
        return
    batches = list(islice(evaluation.batches(task), 1))
    for batch in batches:
        check_slices(task, batch)
    if own:
        batches = [first_sequences(batch, SEQUENCES) for batch in batches]
        stack = build_stack()
        for key, measure in own.items():
            _check_measure(f"evaluation.measures.{key}", measure, evaluation, stack, task, batches)


def check_slice_names(evaluation: Evaluation, task: Task) -> None:
    """Require that the task declares the slices of `evaluation.slices`.

    Those that several tasks share are allowed with every task, so that one evaluation, e.g. `long`,
    serves them all.
    """
    declared = [each.name for each in task.slices]
    for name in evaluation.slices or ():
        if name not in declared and name not in SHARED:
            raise ConfigError(f"`evaluation.slices={evaluation.slices}`: {near_miss(str(name), declared)}")


def _check_measure(
    where: str, measure: Measure, evaluation: Evaluation, stack: Stack, task: Task, batches: Sequence[Batch]
) -> None:
    """Take a measure and refuse what a record could not hold."""
    name = type(measure).__name__
    for always in ALWAYS:
        if measure.name == always.name and not isinstance(measure, always):
            raise ConfigError(f"`{where}`: {name}.name={measure.name}: every run measures this, as {always.__name__}")
    alone = replace(evaluation, measures={}, of_task={measure.name: measure})
    try:
        found = Measured([], {})
        if measure.applies_to(task):
            found = alone.measure_on(batches, stack, task, torch.device("cpu"), finite=False)
        reason = found.missing.get(measure.name, "")
        mistake = next(_mistakes(measure, found.measurements, task), None)
    except Exception as error:
        raise ConfigError(f"`{where}`: {name} fails on an untrained stack ({reason_of(error)})") from error
    if reason:
        raise ConfigError(f"`{where}`: {name} fails on an untrained stack ({reason})")
    if mistake:
        raise ConfigError(f"`{where}`: {name} {mistake}")


def _mistakes(measure: Measure, measurements: Sequence[Measurement], task: Task) -> Iterator[str]:
    """Yield what is wrong with the measurements of a measure, each as the end of a sentence."""
    declared = {each.name for each in (*measure.slices, *task.slices)}
    names = set()
    for found in measurements:
        if found.measure != measure.name or found.unit != measure.unit:
            yield f"yields `{found.measure}` in {found.unit}; must yield `{measure.name}` in {measure.unit}"
        if found.slice and found.slice not in declared:
            yield f"yields the slice `{found.slice}`, which neither its `slices` nor the task declares"
        if found.name in names:
            yield f"yields two measurements with the name `{found.name}`"
        names.add(found.name)
        for value in (found.value, found.low, found.high):
            if value is not None and not isfinite(value):
                yield f"yields {value} for `{found.name}`; must yield finite numbers"
    described(measurements, [measure], task)
