"""Training by Lightning: from a stack to the same stack, trained."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from hybridlab.build import build
from hybridlab.errors import ConfigError
from hybridlab.stack.model import Stack
from hybridlab.training.console import quieten, say
from hybridlab.training.curve import Curve
from hybridlab.training.devices import strategy_for
from hybridlab.training.module import StackModule
from hybridlab.training.progress import Progress
from hybridlab.training.random_state import RandomState
from hybridlab.training.spec import RunSpec
from hybridlab.training.stream import BatchList, BatchStream


def build_trainer(spec: RunSpec, curve: Curve, callbacks: Sequence[Any]) -> lightning.Trainer:
    """Build Lightning's Trainer from its node of the configuration, without a logger.

    It writes nothing yet.
    """
    quieten()
    settings = spec.config["trainer"]
    settings = {**settings, "strategy": strategy_for(settings.get("strategy", "auto"))}
    callbacks = [curve, RandomState(), *callbacks]
    if settings.get("enable_progress_bar", True):
        callbacks.append(Progress(curve))
    try:
        return build(settings, "trainer", logger=False, callbacks=callbacks, default_root_dir=spec.directory)
    except (MisconfigurationException, RuntimeError) as error:
        raise ConfigError(f"`trainer`: {str(error).splitlines()[0]}") from error


def build_checkpoint(spec: RunSpec) -> Any:
    """Build Lightning's ModelCheckpoint, which writes into the run's folder."""
    return build(spec.config["checkpoint"], "checkpoint", dirpath=spec.directory / "checkpoints")


def fit(spec: RunSpec, stack: Stack, trainer: Any, curve: Curve) -> tuple[Stack, torch.device]:
    """Train the stack, from its last checkpoint if there is one.

    Return it, whole, and the device it was trained on.
    """
    module = StackModule(stack, spec.optimiser, spec.steps, compiled=spec.config["compile"])
    stream = BatchStream(
        spec.task, spec.steps * trainer.accumulate_grad_batches, rank=trainer.global_rank, ranks=trainer.world_size
    )
    validation = BatchList(spec.task.validation_batches())
    last = last_checkpoint(spec.directory / "checkpoints")
    if last is not None and trainer.is_global_zero:
        say(f"run {spec.run_id}: goes on from {last.name}")
    trainer.fit(module, stream, validation, ckpt_path=last, weights_only=False)
    if trainer.interrupted:
        raise KeyboardInterrupt
    latest = curve.measurements[-1] if curve.measurements else None
    if latest is None or (latest.split, latest.step) != ("validation", trainer.global_step):
        trainer.validate(module, validation, verbose=False)
    if spec.in_shards:
        weights = trainer.strategy.lightning_module_state_dict()  # every process takes part; the first receives them
        if trainer.is_global_zero:
            stack = spec.build_stack()
            stack.load_state_dict({name.removeprefix("stack."): value for name, value in weights.items()})
    return stack, trainer.strategy.root_device


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint; a file that a kill cut short is not a zip archive."""
    files = sorted(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime, reverse=True)
    return next((file for file in files if zipfile.is_zipfile(file)), None)
