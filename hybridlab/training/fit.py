"""Training by Lightning: from a stack to the same stack, trained."""

import zipfile
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from hybridlab.build import build
from hybridlab.errors import ConfigError
from hybridlab.stack.model import Stack
from hybridlab.training.callbacks import Curve, Progress, RandomState
from hybridlab.training.console import quieten, say
from hybridlab.training.devices import strategy_for
from hybridlab.training.job import Job
from hybridlab.training.module import StackModule
from hybridlab.training.stream import BatchList, BatchStream


def fit(job: Job, stack: Stack, curve: Curve, logger: Any, callbacks: list[Any]) -> tuple[Stack, torch.device]:
    """Train the stack, from its last checkpoint if there is one; return it, whole, and the device it was trained on."""
    module = StackModule(stack, job.optimiser, job.steps, compiled=job.config["compile"])
    trainer = build_trainer(job, curve, logger, [build_checkpoint(job), *callbacks])
    stream = BatchStream(
        job.task, job.steps * trainer.accumulate_grad_batches, rank=trainer.global_rank, ranks=trainer.world_size
    )
    validation = BatchList(job.evaluation.batches(job.task, "validation"))
    last = last_checkpoint(job.directory / "checkpoints")
    if last is not None and trainer.is_global_zero:
        say(f"run {job.run_id}: goes on from {last.name}")
    trainer.fit(module, stream, validation, ckpt_path=last, weights_only=False)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if not curve.rows or (curve.rows[-1].split, curve.rows[-1].step) != ("validation", trainer.global_step):
        trainer.validate(module, validation, verbose=False)
    if job.config["trainer"].get("strategy") == "fsdp":
        weights = trainer.strategy.lightning_module_state_dict()  # every process takes part, the first has them then
        if trainer.is_global_zero:
            stack = job.build_stack()
            stack.load_state_dict({name.removeprefix("stack."): value for name, value in weights.items()})
    return stack, trainer.strategy.root_device


def build_trainer(job: Job, curve: Curve, logger: Any, callbacks: list[Any]) -> lightning.Trainer:
    """Build Lightning's Trainer from its node of the configuration."""
    quieten()
    settings = job.config["trainer"]
    settings = {**settings, "strategy": strategy_for(settings.get("strategy", "auto"))}
    callbacks = [curve, RandomState(), *callbacks]
    if settings.get("enable_progress_bar", True):
        callbacks.append(Progress(curve))
    try:
        return build(settings, "trainer", logger=logger or False, callbacks=callbacks, default_root_dir=job.directory)
    except (MisconfigurationException, RuntimeError) as error:
        raise ConfigError(f"`trainer`: {str(error).splitlines()[0]}") from error


def build_checkpoint(job: Job) -> Any:
    """Build Lightning's ModelCheckpoint, which writes into the run's folder."""
    return build(job.config["checkpoint"], "checkpoint", dirpath=job.directory / "checkpoints")


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint: one cut short by a kill is no zip archive."""
    files = sorted(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime, reverse=True)
    return next((file for file in files if zipfile.is_zipfile(file)), None)
