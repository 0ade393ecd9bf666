"""Checks of a task's contract, for users' own tasks too; each raises a ConfigError before
training."""

from typing import Any

import torch

from hybridlab import validate
from hybridlab.errors import ConfigError
from hybridlab.stack.readout import Readout
from hybridlab.tasks.base import SPLITS, Task
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.slices import DOCUMENT, Slice


def check_evaluation(split: str, limit: int | None, batch: int) -> None:
    """Validate the split name and that counts are positive."""
    validate.choice(SPLITS, split=split)
    validate.whole(batch=batch)
    validate.whole(null="no limit", limit=limit)


def check_readout(task: Task) -> None:
    """Require a `Readout`, and a number of classes if, and only if, the readout predicts one class
    a sequence."""
    name = type(task).__name__
    if not isinstance(task.readout, Readout):
        raise ConfigError(
            f"{name}: readout={task.readout} must be one of Readout.{', Readout.'.join(Readout.__members__)}"
        )
    one_class = task.readout in (Readout.SEQUENCE_MEAN, Readout.PAIR_OF_MEANS)
    if one_class != (task.classes is not None):
        needed = "a number of classes" if one_class else "classes=None, for its targets are tokens"
        raise ConfigError(f"{name}: classes={task.classes} with Readout.{task.readout.name}, which needs {needed}")


def check_slices(task: Task, batch: Batch) -> None:
    """Require that `task.slices` are `Slice` values, `DOCUMENT` among them, and that `batch.slices`
    match them.

    Each declared slice must be in the batch, each fact in the batch must be declared, and each must
    be int64 and of the shape of the targets. A ConfigError names the task's class and the slice.
    """
    declared = _names(task)
    for name in declared:
        if name not in batch.slices:
            raise _refused(task, name, "declared in `slices`, but missing from a batch's `slices`")
    for name, fact in batch.slices.items():
        if name not in declared:
            raise _refused(task, name, "in a batch's `slices`, but not declared in the task's `slices`")
        if fact.shape != batch.targets.shape:
            shapes = f"{list(fact.shape)} in a batch whose targets have the shape {list(batch.targets.shape)}"
            raise _refused(task, name, f"of shape {shapes}; the two must agree")
        if fact.dtype != torch.int64:
            raise _refused(task, name, f"of {fact.dtype} in a batch; must be of torch.int64")


def _names(task: Task) -> list[str]:
    names: list[str] = []
    for entry in task.slices:
        if not isinstance(entry, Slice):
            raise _refused(task, entry, "in `slices`, but no Slice; see hybridlab.tasks.slices")
        if entry.name in names:
            raise _refused(task, entry.name, "declared twice in `slices`")
        names.append(entry.name)
    if DOCUMENT.name not in names:
        raise _refused(task, DOCUMENT.name, "missing from `slices`; intervals need it as their sampling unit")
    return names


def _refused(task: Task, name: Any, what: str) -> ConfigError:
    return ConfigError(f"{type(task).__name__}: the slice `{name}` is {what}")
