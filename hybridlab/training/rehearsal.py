"""Lightning's `fast_dev_run`: a few batches through training and validation, without a record."""

from typing import Any

from hybridlab.training.console import say
from hybridlab.training.fit import build_module
from hybridlab.training.spec import RunSpec
from hybridlab.training.stream import BatchList


def is_rehearsal(spec: RunSpec) -> bool:
    """Return whether the run sets `trainer.fast_dev_run`."""
    return bool(spec.config["trainer"].get("fast_dev_run"))


def rehearse(spec: RunSpec, trainer: Any) -> None:
    """Train and validate on as many batches as `fast_dev_run` says; write nothing."""
    module, stream = build_module(spec, spec.build_stack(), trainer)
    trainer.fit(module, stream, BatchList(spec.task.validation_batches()))
    say("fast_dev_run: training and validation ran; nothing was recorded")
