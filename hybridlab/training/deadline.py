"""The end of a run whose budget is in seconds."""

from collections import deque
from typing import Any

import lightning
import torch

from hybridlab.training.clock import TrainingClock

AHEAD = 2  # steps that may wait in a GPU's queue


class Deadline(lightning.Callback):
    """Ends training when the clock reaches the budget, at the same step on all devices.

    It validates whenever another `trainer.val_check_interval` of the budget is spent, if that is a
    share. A GPU is at most two steps behind the clock.
    """

    def __init__(self, seconds: float, clock: TrainingClock) -> None:
        self.seconds = seconds
        self.clock = clock
        self.spent = 0.0  # as the devices agreed after the latest step
        self._trainer: Any = None
        self._validated: int | None = 0  # intervals of validation that are over
        self._queued: deque[Any] = deque()

    def share(self) -> float:
        """Return the share of the budget that is spent; called once a step, on every device."""
        if self._trainer is None:
            return 0.0
        self.spent = self.clock.now()
        if self._trainer.world_size > 1:
            strategy = self._trainer.strategy
            now = torch.tensor(self.spent, dtype=torch.float64, device=strategy.root_device)
            self.spent = float(strategy.reduce(now, reduce_op="mean"))
        return min(1.0, self.spent / self.seconds)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Go on from the seconds of a checkpoint."""
        self._trainer = trainer
        self.spent = self.clock.seconds
        self._validated = self._intervals(trainer)
        if self._intervals(trainer) is not None:
            trainer.val_check_batch = float("inf")
        if self.spent >= self.seconds:
            trainer.should_stop = True

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop, or have Lightning validate, once the step is complete."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if self.spent >= self.seconds:
            trainer.should_stop = True
        elif (validated := self._intervals(trainer)) is not None:
            trainer.val_check_batch = batch_idx + 1 if validated != self._validated else float("inf")
            self._validated = validated
        self._follow(pl_module.device)

    def _intervals(self, trainer: Any) -> int | None:
        """Return how many intervals of validation are spent; None if steps decide."""
        share = trainer.val_check_interval
        return int(self.spent / self.seconds / share) if isinstance(share, float) and share else None

    def _follow(self, device: torch.device) -> None:
        """Wait for the step before the previous one: without that, a GPU's queue hides the time."""
        if device.type == "cuda":
            self._queued.append(torch.cuda.Event())
            self._queued[-1].record()
            if len(self._queued) > AHEAD:
                self._queued.popleft().synchronize()


class WholeSteps(lightning.Callback):
    """Validates after whole steps: not between the batches that a step accumulates."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Round the interval, which is in batches, up to whole steps."""
        every, parts = trainer.val_check_batch, trainer.accumulate_grad_batches
        if isinstance(every, int):
            trainer.val_check_batch = -(-every // parts) * parts
