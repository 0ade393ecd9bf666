"""How a call is timed."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hybridlab.evaluation.cost.layers import wait
from hybridlab.evaluation.cost.live_bytes import HeldBytes

WARM_UP, REPEATS = 4, 5  # the first rounds fetch memory from the kernel, compile and tune


class Timing(NamedTuple):
    """Forward and backward of one call."""

    first: float  # seconds of the first call: compilation and tuning included
    milliseconds: float  # median, warm
    peak_bytes: int  # most memory held at once during a call, the inputs included


def time_training(call: Callable[[], Tensor], inputs: list[Tensor], device: torch.device) -> Timing:
    """Time forward and backward of `call`, with gradients of all `inputs`."""
    taken = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(WARM_UP + REPEATS):
        wait(device)
        start = time.perf_counter()
        output = call()
        torch.autograd.grad(output, inputs, torch.ones_like(output))
        wait(device)
        taken.append(time.perf_counter() - start)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        with HeldBytes(inputs) as held:
            output = call()
            torch.autograd.grad(output, inputs, torch.ones_like(output))
        peak = held.peak
    return Timing(taken[0], 1000 * statistics.median(taken[WARM_UP:]), peak)
