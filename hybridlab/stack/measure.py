"""What a part of a stack costs, measured on the meta device, where shapes and dtypes are real and nothing is computed."""

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hybridlab.mixers.base import state_bytes


def parameters(module: nn.Module) -> int:
    """Count the trained values."""
    return sum(parameter.numel() for parameter in module.parameters())


def forward_flops(module: nn.Module, width: int, length: int) -> int:
    """Count the FLOPs of one row by PyTorch's counter: matrix products, attention (causal counts whole), convolutions.

    The counter misses the CPU's attention kernel; on the meta device attention falls to matrix products, which it sees.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(_row(module, width, length))
    return counter.get_total_flops()


def state_after(mixer: Any, width: int, length: int) -> int:
    """Return the bytes of a mixer's state after one row, as held in the weights' dtype."""
    row = _row(mixer, width, length)
    with torch.no_grad():
        return state_bytes(mixer.extend(row, mixer.initial_state(1, row))[1])


def _row(module: nn.Module, width: int, length: int) -> torch.Tensor:
    dtype = next((parameter.dtype for parameter in module.parameters()), None)
    return torch.empty(1, length, width, device="meta", dtype=dtype)
