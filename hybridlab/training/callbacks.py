"""The user's own callbacks of Lightning, and the losses that they may monitor.

`trainer.callbacks` is a mapping from names to nodes with a `_target_`, or a list of such nodes.
"""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import callbacks as lightnings
from lightning.pytorch.callbacks import Callback

from hybridlab.build import build, find_target
from hybridlab.errors import ConfigError, near_miss

MONITORED = ("train_nll", "validation_nll", "train/nll", "validation/nll")

# Callbacks that would make the run another one than its configuration says.
REFUSED: dict[type, str] = {
    lightnings.GradientAccumulationScheduler: "changes what a step is in the middle of a run; write "
    "`trainer.accumulate_grad_batches`",
    lightnings.BatchSizeFinder: "changes the batch, which decides the results; write `task.batch`",
    lightnings.LearningRateFinder: "changes the learning rate, which decides the results; sweep over `optimizer.lr`",
    lightnings.StochasticWeightAveraging: "averages once an epoch, and a run is one epoch; write "
    "`lightning.pytorch.callbacks.EMAWeightAveraging`",
    lightnings.ModelPruning: "renames the weights that are kept and evaluated",
    lightnings.BaseFinetuning: "a stack is trained whole: there is no backbone to unfreeze",
}
NEED_A_LOGGER = (lightnings.LearningRateMonitor, lightnings.DeviceStatsMonitor, lightnings.ThroughputMonitor)


class MonitoredLosses(Callback):
    """Puts the losses of training and validation where callbacks look for what they monitor.

    The training loss is that of the latest step, the mean over the devices.
    """

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Publish the training loss."""
        self._publish(trainer, "train", trainer.strategy.reduce(pl_module.last_nll.clone(), reduce_op="mean"))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Publish the validation loss also by its name in the record."""
        if (loss := trainer.callback_metrics.get("validation_nll")) is not None:
            self._publish(trainer, "validation", loss)

    @staticmethod
    def _publish(trainer: Any, split: str, loss: Any) -> None:
        trainer.callback_metrics.update({f"{split}_nll": loss, f"{split}/nll": loss})


def check_callbacks(settings: Mapping[str, Any], logs: bool) -> None:
    """Build the callbacks of `trainer`, refuse what a run would not do, and forget them again.

    `logs` says whether the run has a logger.
    """
    built = dict(_built(settings["callbacks"], Path()))
    own_metrics = any(_brings_metrics(callback) for callback in built.values())
    for where, callback in built.items():
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and monitor not in MONITORED and not own_metrics:
            raise ConfigError(f"`{where}.monitor={monitor}`: not measured; {near_miss(monitor, MONITORED)}")
        if isinstance(callback, NEED_A_LOGGER) and not logs:
            raise ConfigError(f"`{where}`: {type(callback).__name__} needs a logger; write `logger=csv`")
        if isinstance(callback, lightnings.WeightAveraging) and settings.get("strategy") == "fsdp":
            raise ConfigError(f"`{where}`: {type(callback).__name__} does not average sharded weights; not with fsdp")
        if isinstance(callback, lightnings.Checkpoint) and settings.get("enable_checkpointing") is False:
            raise ConfigError(f"`{where}`: {type(callback).__name__} with `trainer.enable_checkpointing=false`")
        if isinstance(callback, lightnings.ProgressBar) and settings.get("enable_progress_bar") is False:
            raise ConfigError(f"`{where}`: {type(callback).__name__} with `trainer.enable_progress_bar=false`")


def own_callbacks(settings: Mapping[str, Any], directory: Path) -> list[Callback]:
    """Build the callbacks of `trainer`, after what publishes the losses for them.

    Each writes into a folder of its own in the run's `directory`, unless it names another one.
    """
    own = list(dict(_built(settings.get("callbacks"), directory)).values())
    return [MonitoredLosses(), *own] if own else []


def defaults_for(target: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some settings that a class takes by name."""
    return {name: value for name, value in settings.items() if name in inspect.signature(target).parameters}


def _built(node: Any, directory: Path) -> Iterator[tuple[str, Callback]]:
    """Yield the path and the callback of each node; null stands for none."""
    if isinstance(node, Mapping) and "_target_" in node:
        raise ConfigError(
            f"`trainer.callbacks._target_={node['_target_']}`: must be below a name, e.g. "
            f"`+trainer.callbacks.mine={{_target_: {node['_target_']}}}`"
        )
    if not isinstance(node, Mapping | list | None):
        raise ConfigError(
            f"`trainer.callbacks={node}`: must be a mapping from names to `_target_` and settings, or a list"
        )
    items = node.items() if isinstance(node, Mapping) else enumerate(node or ())
    for name, settings in items:
        where = f"trainer.callbacks.{name}"
        if settings is None:
            continue
        if not isinstance(settings, Mapping):
            raise ConfigError(f"`{where}={settings}`: must be a `_target_` and its settings")
        target = find_target(settings, where)
        if not (isinstance(target, type) and issubclass(target, Callback)):
            raise ConfigError(
                f"`{where}._target_={settings['_target_']}`: must be a lightning.pytorch.callbacks.Callback"
            )
        if (base := next((each for each in REFUSED if issubclass(target, each)), None)) is not None:
            raise ConfigError(f"`{where}._target_={settings['_target_']}`: {target.__name__} {REFUSED[base]}")
        folder = defaults_for(target, {"dirpath": str(directory / str(name))})
        try:
            yield where, build({**folder, **settings}, where)
        except (MisconfigurationException, TypeError, ImportError) as error:
            raise ConfigError(f"`{where}`: {str(error).splitlines()[0]}") from error


def _brings_metrics(callback: Callback) -> bool:
    """Return whether a callback may log metrics of its own, which others may monitor."""
    ours = type(callback).__module__.partition(".")[0] == lightning.__name__
    return not ours or isinstance(callback, lightnings.LearningRateMonitor)
