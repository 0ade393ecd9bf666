"""The loggers of a run: each gets the curve and the final numbers, under the names of the record.

The record is authoritative. A logger that fails costs no run: a line says why, and the run goes on
without it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger

from hybridlab.build import checked, find_target
from hybridlab.errors import ConfigError, reason_of
from hybridlab.records.measurement import Measurement
from hybridlab.records.record import RunRecord
from hybridlab.training import dashboard
from hybridlab.training.callbacks import defaults_for
from hybridlab.training.console import say
from hybridlab.training.logger_settings import declared_loggers


class Place(NamedTuple):
    """Where the loggers of a run write: into its folder, or into that of its sweep."""

    run: Path
    sweep: Path


class GuardedLogger(Logger):
    """A logger whose calls never fail: after the first error it is left out, and a line says why.

    `open` makes the logger. One that `appends` goes on where it stopped when a run is resumed; any
    other one is first sent the curve so far, which `earlier` returns.
    """

    def __init__(
        self,
        name: str,
        open: Callable[[], Logger],
        *,
        appends: bool = False,
        earlier: Callable[[], Sequence[Measurement]] = tuple,
    ) -> None:
        super().__init__()
        self._name = name
        self._behind = not appends
        self._earlier = earlier
        self.logger: Logger | None = None
        self.logger = attempt(name, open, self._lose)

    @property
    def name(self) -> str | None:
        """The name that the logger gives itself."""
        return self._read("name", None)

    @property
    def version(self) -> int | str | None:
        """The version that the logger gives itself."""
        return self._read("version", None)

    @property
    def save_dir(self) -> str | None:
        """The folder that the logger writes into."""
        return self._read("save_dir", None)

    @property
    def experiment(self) -> Any:
        """The object that callbacks log by; one that does nothing for a logger that has failed."""
        return self._read("experiment", DummyLogger().experiment)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers of a step."""
        self.catch_up([each for each in self._earlier() if not (each.step == step and each.name in metrics)])
        self.call("log_metrics", metrics, step)

    def catch_up(self, curve: Sequence[Measurement]) -> None:
        """Log a curve, unless anything is logged already."""
        if self._behind:
            self._behind = False
            for point in curve:
                self.call("log_metrics", {point.name: point.value, "tokens": point.tokens}, point.step)

    def log_hyperparams(self, params: Any, *arguments: Any, **more: Any) -> None:
        """Log settings."""
        self.call("log_hyperparams", params, *arguments, **more)

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Log the graph of a model."""
        self.call("log_graph", model, input_array)

    def save(self) -> None:
        """Write what is not yet written."""
        self.call("save")

    def finalize(self, status: str) -> None:
        """End the logging of one pass of Lightning's; more may follow."""
        self.call("finalize", status)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Take note of a checkpoint."""
        self.call("after_save_checkpoint", checkpoint_callback)

    def call(self, method: str, *arguments: Any, **more: Any) -> None:
        """Call a method of the logger, unless it has failed."""
        self.use(lambda logger: getattr(logger, method)(*arguments, **more))

    def use(self, function: Callable[[Any], Any]) -> Any:
        """Return a function of the logger; None if the logger has failed."""
        return None if self.logger is None else attempt(self._name, lambda: function(self.logger), self._lose)

    def _read(self, name: str, otherwise: Any) -> Any:
        found = self.use(lambda logger: getattr(logger, name, None))
        return otherwise if found is None else found

    def _lose(self) -> None:
        self.logger = None


def attempt(name: str, call: Callable[[], Any], failed: Callable[[], None] = lambda: None) -> Any:
    """Return what a call of a logger returns; if it raises, say why, call `failed`, return None."""
    try:
        return call()
    except Exception as error:
        say(f"logger {name}: {reason_of(error).rstrip('.')}; the run goes on without it")
        failed()
        return None


def check_loggers(node: Any) -> None:
    """Refuse classes that are no loggers, and settings that they do not have."""
    for name, settings in declared_loggers(node).items():
        where = f"logger.{name}"
        target = find_target(settings, where)
        if not (isinstance(target, type) and issubclass(target, Logger)):
            raise ConfigError(f"`{where}._target_={settings['_target_']}`: must be a lightning.pytorch.loggers.Logger")
        if dashboard.is_wandb(target):
            dashboard.check(settings, where)
        given = _given(target, name, Place(Path(), Path()), None)
        checked(settings, where, given.keys() - settings.keys())


@contextmanager
def open_loggers(
    node: Any, record: RunRecord, place: Place, earlier: Callable[[], Sequence[Measurement]] = tuple
) -> Iterator[list[GuardedLogger]]:
    """Yield the loggers of a run, and close them; a run that ends by an error is marked as failed.

    `earlier` returns the points of the learning curve so far.
    """
    opened = {name: _open(name, settings, record, place, earlier) for name, settings in declared_loggers(node).items()}
    wandb = [name for name, logger in opened.items() if logger.logger and dashboard.is_wandb(type(logger.logger))]
    status = "failed"
    try:
        yield list(opened.values())
        status = "success"
    finally:
        for logger in opened.values():
            logger.finalize(status)
        for name in wandb:  # also of one that has failed since: the next run of this process needs its own
            attempt(name, lambda: dashboard.finish(status == "success"))


def publish(loggers: Sequence[GuardedLogger], record: RunRecord) -> None:
    """Send the final numbers of a record: every measurement that is not on the curve."""
    final = {row.name: row.value for row in record.measurements if row.step is None}
    curve = [row for row in record.measurements if row.step is not None]
    for logger in loggers:
        if dashboard.is_wandb(type(logger.logger)):
            logger.use(lambda each: dashboard.publish(each, record))
        else:
            logger.catch_up(curve)
            logger.log_metrics(final, max((row.step or 0 for row in curve), default=0))
            logger.save()


def _open(
    name: str,
    settings: Mapping[str, Any],
    record: RunRecord,
    place: Place,
    earlier: Callable[[], Sequence[Measurement]],
) -> GuardedLogger:
    """Open a logger and send it the configuration."""
    target = find_target(settings, f"logger.{name}")
    own = {key: value for key, value in settings.items() if key != "_target_"}
    appends = dashboard.is_wandb(target) or target.__name__ == "TensorBoardLogger"
    opened = GuardedLogger(
        name,
        lambda: target(**{**_given(target, name, place, record), **own}),
        appends=appends,
        earlier=earlier,
    )
    if not dashboard.is_wandb(target):
        opened.log_hyperparams(dashboard.config_of(record))
    return opened


def _given(target: Any, name: str, place: Place, record: RunRecord | None) -> dict[str, Any]:
    """Return what a logger is given unless its settings say otherwise; its values need a record."""
    if dashboard.is_wandb(target):
        return dashboard.given(record, place.sweep)
    if target.__name__ == "MLFlowLogger":
        about = {} if record is None else {"experiment_name": record.name, "run_name": dashboard.title(record)}
        tags = {} if record is None else {"run_id": record.run_id, "seed": str(record.seed)}
        return {**about, "tags": tags, "save_dir": str(place.sweep / "mlruns")}
    return defaults_for(target, {"save_dir": str(place.run), "name": name, "version": ""})
