"""Training by Lightning: from a stack to the same stack, trained."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers.logger import DummyLogger

from hybridlab.build import build, find_target
from hybridlab.errors import ConfigError, reason_of
from hybridlab.stack.model import Stack
from hybridlab.training.budget import Budget
from hybridlab.training.callbacks import own_callbacks
from hybridlab.training.checkpoint import FOLDER, CarriesIdentity, last_checkpoint
from hybridlab.training.console import quieten, say
from hybridlab.training.curve import Curve
from hybridlab.training.deadline import Deadline, WholeSteps
from hybridlab.training.devices import check_machine
from hybridlab.training.divergence import DivergedError
from hybridlab.training.ending import truncation
from hybridlab.training.logger_settings import declared_loggers
from hybridlab.training.loggers import check_loggers
from hybridlab.training.module import StackModule
from hybridlab.training.origin import Origin, StepRepeatedError, first_output
from hybridlab.training.progress import Progress
from hybridlab.training.random_state import RandomState
from hybridlab.training.spec import RunSpec
from hybridlab.training.stream import BatchList, BatchStream
from hybridlab.training.trainer_arguments import lightning_arguments, precision_of, validation_limit


def build_trainer(spec: RunSpec, curve: Curve, callbacks: Sequence[Any]) -> lightning.Trainer:
    """Build Lightning's Trainer from its node of the configuration, without a logger.

    It writes nothing yet.
    """
    quieten()
    declared = spec.config["trainer"]
    settings = {"max_steps": spec.budget.steps or -1, **lightning_arguments(declared, spec.directory)}
    if settings.get("enable_checkpointing") is False:
        callbacks = [each for each in callbacks if not isinstance(each, Checkpoint)]
    own = own_callbacks(declared, spec.directory)
    ours = [*_timing(spec.budget, settings, curve), curve, RandomState(), CarriesIdentity(spec.digest)]
    callbacks = [*ours, *own, *callbacks]
    if settings.get("enable_progress_bar") is not False and not any(isinstance(each, ProgressBar) for each in own):
        callbacks.append(Progress(curve))
    check_loggers(spec.config["logger"])
    # Callbacks may ask for a logger in any process; the first gets the real ones when it starts.
    logger = DummyLogger() if declared_loggers(spec.config["logger"]) else False
    if not issubclass(find_target(settings, "trainer"), lightning.Trainer):
        raise ConfigError(f"`trainer._target_={settings['_target_']}`: must be a lightning.pytorch.Trainer")
    try:
        trainer = build(settings, "trainer", logger=logger, callbacks=callbacks, default_root_dir=spec.directory)
    except (MisconfigurationException, RuntimeError, TypeError, ImportError) as error:
        raise ConfigError(f"`trainer`: {str(error).splitlines()[0]}") from error
    check_machine(trainer, precision_of(declared))
    return trainer


class Fitted(NamedTuple):
    """A trained stack, whole, on `device`; `truncated` says why training ended before its budget
    was spent, "" if it did not.
    """

    stack: Stack
    device: torch.device
    truncated: str


def fit(spec: RunSpec, stack: Stack, trainer: Any, curve: Curve) -> Fitted:
    """Train the stack, from its last checkpoint if there is one.

    Raise DivergedError, which says where it began, if anything in training or in validation is not
    a finite number.
    """
    module, stream = build_module(spec, stack, trainer)
    validation = _validation(spec, trainer)
    last = last_checkpoint(spec.directory / FOLDER, spec.digest)
    if last is not None and trainer.is_global_zero:
        say(f"run {spec.run_id}: goes on from {last.name}")
    try:
        trainer.fit(module, stream, validation, ckpt_path=last, weights_only=False)
        if trainer.interrupted:
            raise KeyboardInterrupt
        latest = curve.measurements[-1] if curve.measurements else None
        if latest is None or (latest.split, latest.step) != ("validation", curve.step):
            trainer.validate(module, validation, verbose=False)
    except DivergedError as error:
        raise DivergedError(f"{error}{_origin(spec, stack, trainer, validation, error)}", error.step) from error
    if spec.in_shards:
        weights = trainer.strategy.lightning_module_state_dict()  # every process takes part; the first receives them
        if trainer.is_global_zero:
            stack = spec.build_stack()
            stack.load_state_dict({name.removeprefix("stack."): value for name, value in weights.items()})
    return Fitted(stack, trainer.strategy.root_device, truncation(spec.budget, trainer, curve))


def build_module(spec: RunSpec, stack: Stack, trainer: Any) -> tuple[StackModule, BatchStream]:
    """Return what a trainer of `build_trainer` trains a stack with, and the batches."""
    ranks = {"rank": trainer.global_rank, "ranks": trainer.world_size}
    stream = BatchStream(spec.task, spec.budget.steps, **ranks, micro_batches=spec.micro_batches)
    share = next((each.share for each in trainer.callbacks if isinstance(each, Deadline)), None)
    compiled = spec.config["compile"]
    module = StackModule(
        stack, spec.optimiser, spec.steps, compiled=compiled, share=share, supervised=stream.supervised
    )
    return module, stream


def _validation(spec: RunSpec, trainer: Any) -> BatchList:
    """Return the batches of the validation split, and have the trainer read what it should."""
    validation = BatchList(spec.task.validation_batches())
    trainer.limit_val_batches = validation_limit(trainer.limit_val_batches, len(validation))
    return validation


def _timing(budget: Budget, settings: dict[str, Any], curve: Curve) -> list[Any]:
    """Return the callbacks that decide after which steps training ends and validation runs.

    Under a budget in seconds, Lightning must set no limit of its own.
    """
    if budget.seconds is None:
        return [WholeSteps()]
    if settings.get("max_epochs") is None:
        settings["max_epochs"] = 1
    return [WholeSteps(), Deadline(budget.seconds, curve.clock)]


def _origin(spec: RunSpec, stack: Stack, trainer: Any, validation: BatchList, error: DivergedError) -> str:
    """Return where a divergence began, as the end of a sentence."""
    if not error.shown_by:
        return ""
    if trainer.is_global_zero:
        say(f"run {spec.run_id}: {error}; looking for where it began")
    if error.shown_by == "validation":
        if spec.in_shards:
            return ""
        with trainer.precision_plugin.forward_context():
            origin = first_output(stack, validation, trainer.strategy.root_device)
        return f": {origin}" if origin else "; repeated, the validation is finite, so where it began is unknown"
    return repeat(spec, error.step, _random_state(trainer).started)


def repeat(spec: RunSpec, step: int, started: Any) -> str:
    """Repeat training from the last checkpoint to the end of a step that is not finite.

    Return where it began, as the end of a sentence. `started` is the random state at the start of
    training, which is restored if there is no checkpoint. Every process of the run takes part.
    """
    last = last_checkpoint(spec.directory / FOLDER, spec.digest)
    own = {"callbacks", "logger", "profiler"}  # of the user: they have seen these steps
    settings = {key: value for key, value in spec.config["trainer"].items() if key not in own}
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False}
    again = replace(spec, config={**spec.config, "trainer": settings | quiet})
    origin = Origin(step)
    trainer = build_trainer(again, Curve(spec.tokens_per_step), [origin])
    trainer.strategy._launcher = None  # the processes of this run exist
    if last is None:
        _random_state(trainer).restore(started)
    module, stream = build_module(again, again.build_stack(), trainer)
    validation = _validation(spec, trainer)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint need to be provided.*")
        try:
            trainer.fit(module, stream, validation, ckpt_path=last, weights_only=False)
        except (StepRepeatedError, DivergedError):
            pass
        except Exception as error:
            return f"; where it began is unknown, for its repetition failed: {reason_of(error)}"
    found = [origin.found]
    if trainer.world_size > 1:
        found = [""] * trainer.world_size
        torch.distributed.all_gather_object(found, origin.found)
    where = next(filter(None, found), "")
    since = "the start" if last is None else last.name
    return f": {where}" if where else f"; repeated from {since}, it did not come back, so where it began is unknown"


def _random_state(trainer: Any) -> RandomState:
    return next(each for each in trainer.callbacks if isinstance(each, RandomState))
