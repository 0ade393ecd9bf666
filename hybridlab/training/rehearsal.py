"""Lightning's `fast_dev_run`: a few batches through training and validation, without a record."""

from typing import Any

from hybridlab.training.console import say
from hybridlab.training.module import StackModule
from hybridlab.training.spec import RunSpec
from hybridlab.training.stream import BatchList, BatchStream


def is_rehearsal(spec: RunSpec) -> bool:
    """Return whether the run sets `trainer.fast_dev_run`."""
    return bool(spec.config["trainer"].get("fast_dev_run"))


def rehearse(spec: RunSpec, trainer: Any) -> None:
    """Train and validate on as many batches as `fast_dev_run` says; write nothing."""
    module = StackModule(spec.build_stack(), spec.optimiser, spec.steps)
    trainer.fit(module, BatchStream(spec.task, spec.steps), BatchList(spec.task.validation_batches()))
    say("fast_dev_run: training and validation ran; nothing was recorded")
