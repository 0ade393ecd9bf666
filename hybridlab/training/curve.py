"""The learning curve and the throughput of a run, and the checks that its numbers are finite."""

import math
from typing import Any

import lightning

from hybridlab.records.measurement import Measurement
from hybridlab.training.clock import TrainingClock
from hybridlab.training.divergence import DivergedError


class Curve(lightning.Callback):
    """Measures the training loss at logging steps, the validation loss and the training speed.

    A step is a step of the optimiser; `tokens_per_step` counts the tokens of all its batches. The
    measurements go into checkpoints, so a resumed run continues its curve. Lightning's own
    `self.log` is not used for the training loss: it costs about half a millisecond per key and
    step, whether or not the step is logged, and a step on a CPU may take only a few milliseconds.

    What is not finite is no measurement: losses and norms of gradients are checked at logging
    steps, these and the weights before validation and at the end, and a DivergedError is raised.
    """

    def __init__(self, tokens_per_step: int) -> None:
        self.tokens_per_step = tokens_per_step
        self.measurements: list[Measurement] = []
        self.clock = TrainingClock()
        self.step = 0  # the optimiser steps made

    @property
    def tokens(self) -> int:
        """The training tokens read, padding included."""
        return self.step * self.tokens_per_step

    @property
    def tokens_per_second(self) -> float:
        """Training tokens per second, validation excluded; 0 before the first step."""
        return self.clock.steps_per_second * self.tokens_per_step

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Start the clock after a pause. It keeps running between steps, so loading data counts."""
        self.clock.start()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record the training loss at logging steps."""
        if trainer.global_step == self.step:
            return  # the step is not complete: more batches are accumulated
        self.step = trainer.global_step
        if self._is_logged(trainer):
            pl_module.watch.check(trainer.strategy)
            nll = float(trainer.strategy.reduce(pl_module.last_nll.clone(), reduce_op="mean"))  # over the devices
            self.clock.step_ended(pl_module.device)
            self._add(trainer, "train", nll)
        else:
            self.clock.step_ended(pl_module.device)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Stop the clock; check what has been trained."""
        self.clock.stop(pl_module.device)
        if not trainer.sanity_checking:
            pl_module.check()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Record the validation loss."""
        if trainer.sanity_checking or "validation_nll" not in trainer.callback_metrics:
            return
        nll = float(trainer.callback_metrics["validation_nll"])
        if not math.isfinite(nll):
            raise DivergedError(f"the validation loss is {nll} at step {self.step}", self.step, shown_by="validation")
        self._add(trainer, "validation", nll)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Stop the clock, so that its seconds do not include the writing."""
        self.clock.stop(pl_module.device)
        checkpoint["callbacks"][self.state_key] = self.state_dict()  # with the seconds up to here

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop the clock; check the last steps."""
        self.clock.stop(pl_module.device)
        pl_module.check()

    def state_dict(self) -> dict[str, Any]:
        """Return the curve and the clock for a checkpoint."""
        return {"rows": [vars(each) for each in self.measurements], "step": self.step, **self.clock.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the curve and the clock from a checkpoint."""
        self.measurements = [Measurement(**row) for row in state_dict["rows"]]
        self.step = state_dict["step"]
        self.clock.load_state_dict(state_dict)

    def _is_logged(self, trainer: Any) -> bool:
        every = trainer.log_every_n_steps
        return self.step == trainer.max_steps or trainer.should_stop or (bool(every) and self.step % every == 0)

    def _add(self, trainer: Any, split: str, nll: float) -> None:
        measurement = Measurement(
            measure="nll", split=split, value=nll, unit="nats/token", step=self.step, tokens=self.tokens
        )
        self.measurements.append(measurement)
        for logger in trainer.loggers:
            metrics = {measurement.name: nll, "tokens": self.tokens, "tokens_per_second": self.tokens_per_second}
            logger.log_metrics(metrics, self.step)
