"""The training clock."""

import sys
import time
from typing import Any

import torch

from hybridlab.evaluation.cost.layers import wait


class TrainingClock:
    """Counts the seconds of training steps, their data included.

    Validation and writing checkpoints do not count, and neither does a step in which something is
    compiled: the first step after a start or a resumption, in which kernels are compiled and
    loaded, and any later one in which PyTorch compiles. `seconds` and `steps` are those of the
    steps that count.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.steps = 0
        self._uncounted = 0.0  # the duration of the latest step that did not count
        self._mark: float | None = None  # what came before is counted or left out; None: the clock stands
        self._compiled = -1  # what was compiled before this step; -1: no step has ended in this process

    @property
    def steps_per_second(self) -> float:
        """The speed of the steps that count; where there are none, of the latest that does not."""
        if self.steps:
            return self.steps / self.seconds
        return 1 / self._uncounted if self._uncounted else 0.0

    def start(self) -> None:
        """Start the clock, unless it runs."""
        if self._mark is None:
            self._mark = time.perf_counter()

    def now(self) -> float:
        """Return the seconds that count up to now, in the middle of a step."""
        if self._mark is None or self._is_compiling():
            return self.seconds
        return self.seconds + time.perf_counter() - self._mark

    def step_ended(self, device: torch.device) -> None:
        """Count a step, or leave it out once the device has finished it."""
        assert self._mark is not None, "the clock stands"
        if self._is_compiling():
            wait(device)
            self._compiled = compilations()
            end = time.perf_counter()
            self._uncounted = end - self._mark
        else:
            end = time.perf_counter()
            self.seconds += end - self._mark
            self.steps += 1
        self._mark = end

    def stop(self, device: torch.device) -> None:
        """Stop the clock once the device has finished."""
        if self._mark is not None:
            wait(device)
            self.seconds = self.now()
            self._mark = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"seconds": self.seconds, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.seconds, self.steps = state["seconds"], state["steps"]

    def _is_compiling(self) -> bool:
        return self._compiled < 0 or compilations() != self._compiled


def compilations() -> int:
    """Return how many graphs PyTorch has compiled in this process."""
    if "torch._dynamo" not in sys.modules:  # importing it takes seconds
        return 0
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]
