"""The costs of a part of a stack, measured on the meta device, where nothing is computed."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hybridlab.mixers.base import state_bytes


def parameters(module: nn.Module) -> int:
    """Return the number of trained parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def forward_flops(module: nn.Module, width: int, length: int) -> int:
    """Return the FLOPs of the forward pass of one sequence of `length` tokens.

    PyTorch's counter counts matrix products, attention (the whole matrix, even if causal) and
    convolutions. It does not count the CPU's attention kernel, but on the meta device attention is
    computed by matrix products, which it does count.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(_sequence(module, width, length))
    return counter.get_total_flops()


def state_after(mixer: Any, width: int, length: int) -> int:
    """Return the bytes of a mixer's state, in the weights' dtype, after `length` tokens."""
    x = _sequence(mixer, width, length)
    with torch.no_grad():
        return state_bytes(mixer.extend(x, mixer.initial_state(1, x))[1])


def _sequence(module: nn.Module, width: int, length: int) -> Float[Tensor, "1 length width"]:
    dtype = next((parameter.dtype for parameter in module.parameters()), None)
    return torch.empty(1, length, width, device="meta", dtype=dtype)
