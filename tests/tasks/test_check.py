"""A task that breaks its contract is refused in a line that names its class and the slice."""

import re

import pytest
import torch

from hybridlab.errors import ConfigError
from hybridlab.stack.readout import Readout
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.check import check_readout, check_slices
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, POSITION, Slice


class Mine(Task):
    """A user's task."""

    slices = (DOCUMENT, POSITION, Slice("colour", "colour of the pixel"))


class Undocumented(Task):
    slices = (POSITION,)


class Named(Task):
    slices = (DOCUMENT, "colour")  # pyright: ignore[reportAssignmentType]


class Twice(Task):
    slices = (DOCUMENT, POSITION, Slice("position", "another one"))


def batch_of(*names: str, shape: tuple[int, ...] = (2, 5), dtype: torch.dtype = torch.int64) -> Batch:
    tokens = torch.zeros(2, 5, dtype=torch.int64)
    facts = dict.fromkeys(names, tokens)
    return Batch(tokens, tokens, {**facts, names[-1]: torch.zeros(shape, dtype=dtype)})


def test_declared_facts_are_accepted():
    check_slices(Mine(), batch_of("document", "position", "colour"))


def test_a_task_without_other_slices_is_accepted():
    class Least(Task):
        slices = (DOCUMENT,)

    check_slices(Least(), batch_of("document"))


@pytest.mark.parametrize(
    ("task", "batch", "message"),
    [
        (Mine(), batch_of("document", "position"), "Mine: the slice `colour` is declared in `slices`, but missing"),
        (
            Mine(),
            batch_of("document", "position", "colour", DISTANCE.name),
            "Mine: the slice `distance` is in a batch's `slices`, but not declared",
        ),
        (
            Mine(),
            batch_of("document", "position", "colour", shape=(2,)),
            "Mine: the slice `colour` is of shape [2] in a batch whose targets have the shape [2, 5]",
        ),
        (
            Mine(),
            batch_of("document", "position", "colour", dtype=torch.float32),
            "Mine: the slice `colour` is of torch.float32 in a batch; must be of torch.int64",
        ),
        (Undocumented(), batch_of("position"), "Undocumented: the slice `document` is missing from `slices`"),
        (Named(), batch_of("document", "colour"), "Named: the slice `colour` is in `slices`, but no Slice"),
        (Twice(), batch_of("document", "position"), "Twice: the slice `position` is declared twice"),
    ],
)
def test_facts_that_differ_from_the_declared_are_refused(task: Task, batch: Batch, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_slices(task, batch)


@pytest.mark.parametrize(
    ("readout", "classes", "message"),
    [
        (Readout.SEQUENCE_MEAN, None, "Mine: classes=None with Readout.SEQUENCE_MEAN, which needs a number of classes"),
        (Readout.LAST_POSITION, 3, "Mine: classes=3 with Readout.LAST_POSITION, which needs classes=None"),
        ("mean", None, "Mine: readout=mean must be one of Readout.EVERY_POSITION"),
    ],
)
def test_a_readout_without_its_classes_is_refused(readout: Readout, classes: int | None, message: str):
    task = Mine()
    task.readout, task.classes = readout, classes
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_readout(task)
