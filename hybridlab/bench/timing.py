"""Time and memory of one call, forward and backward."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hybridlab.evaluation.cost.layers import wait
from hybridlab.evaluation.cost.live_bytes import LiveBytes

WARM_UP, REPEATS = 4, 5  # the first rounds allocate memory, compile and tune


class Timing(NamedTuple):
    """The cost of one call, forward and backward."""

    first: float  # seconds of the first call, including compilation and tuning
    milliseconds: float  # median of the calls after the warm-up
    peak_bytes: int  # peak memory during a call, including the inputs


def time_training(call: Callable[[], Tensor], inputs: list[Tensor], device: torch.device) -> Timing:
    """Time forward and backward of `call`, with gradients for all `inputs`."""
    seconds = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(WARM_UP + REPEATS):
        wait(device)
        start = time.perf_counter()
        output = call()
        torch.autograd.grad(output, inputs, torch.ones_like(output), allow_unused=True)
        wait(device)
        seconds.append(time.perf_counter() - start)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        with LiveBytes(inputs) as held:
            output = call()
            torch.autograd.grad(output, inputs, torch.ones_like(output), allow_unused=True)
        peak = held.peak
    return Timing(seconds[0], 1000 * statistics.median(seconds[WARM_UP:]), peak)
