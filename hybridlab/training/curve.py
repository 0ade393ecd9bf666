"""The learning curve and the throughput of a run."""

import math
import time
from typing import Any

import lightning

from hybridlab.records.measurement import Measurement


class DivergedError(RuntimeError):
    """The training loss is no longer a finite number."""


class Curve(lightning.Callback):
    """Measures the training loss at logging steps, the validation loss and the training speed.

    The measurements go into checkpoints, so a resumed run continues its curve. Lightning's own
    `self.log` is not used for the training loss: it costs about half a millisecond per key and
    step, whether or not the step is logged, and a step on a CPU may take only a few milliseconds.
    """

    def __init__(self, tokens_per_step: int) -> None:
        self.tokens_per_step = tokens_per_step
        self.measurements: list[Measurement] = []
        self.steps_timed = 0
        self.seconds = 0.0
        self._lap_started: float | None = None

    @property
    def tokens_per_second(self) -> float:
        """Training tokens per second, validation excluded; 0 before the first lap."""
        return self.steps_timed * self.tokens_per_step / self.seconds if self.seconds else 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Start the clock after a pause. It keeps running between steps, so loading data counts."""
        if self._lap_started is None:
            self._lap_started = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record the training loss at logging steps; raise DivergedError if it is not finite."""
        self.steps_timed += 1
        step = trainer.global_step
        if step % trainer.log_every_n_steps and step != trainer.max_steps:
            return
        nll = float(trainer.strategy.reduce(pl_module.last_nll, reduce_op="mean"))  # over the devices
        self._lap()
        if not math.isfinite(nll):
            raise DivergedError(f"the training loss is {nll} at step {step}")
        self._add(trainer, "train", nll, step)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Stop the clock."""
        if self._lap_started is not None:
            self._lap()
            self._lap_started = None

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Record the validation loss."""
        if "validation_nll" in trainer.callback_metrics:
            self._add(trainer, "validation", float(trainer.callback_metrics["validation_nll"]), trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """Return the curve and the clock for a checkpoint."""
        rows = [vars(measurement) for measurement in self.measurements]
        return {"rows": rows, "steps_timed": self.steps_timed, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the curve and the clock from a checkpoint."""
        self.measurements = [Measurement(**row) for row in state_dict["rows"]]
        self.steps_timed, self.seconds = state_dict["steps_timed"], state_dict["seconds"]

    def _lap(self) -> None:
        if self._lap_started is not None:
            now = time.perf_counter()
            self.seconds += now - self._lap_started
            self._lap_started = now

    def _add(self, trainer: Any, split: str, nll: float, step: int) -> None:
        tokens = step * self.tokens_per_step
        measurement = Measurement(measure="nll", split=split, value=nll, unit="nats/token", step=step, tokens=tokens)
        self.measurements.append(measurement)
        for logger in trainer.loggers:
            metrics = {measurement.name: nll, "tokens": tokens, "tokens_per_second": self.tokens_per_second}
            logger.log_metrics(metrics, step)
