"""How the cost of a mixer grows with the length of a row: measured on the meta device, where nothing is computed."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from hybridlab.mixers.base import Mixer
from hybridlab.stack.measure import state_after

SHORT, LONG = 1024, 16384


@dataclass(frozen=True)
class Cost:
    """The cost of one row of a length: a training step's forward and backward, and the state after it."""

    flops: int  # by PyTorch's counter: matrix products, attention, convolutions
    written: int  # bytes of the results of all operations: what element-wise work, scans and transforms cost
    state: int | None  # bytes; None for a mixer that is not decoded


def training_cost(mixer: Mixer, width: int, length: int) -> Cost:
    """Count forward and backward of one row by a mixer that is on the meta device."""
    row = torch.empty(1, length, width, device="meta", requires_grad=True)
    corrected = {torch.ops.aten.convolution_backward: _convolution_gradients}
    with FlopCounterMode(display=False, custom_mapping=corrected) as flops, _Written() as written:
        y = mixer(row)
        y.backward(torch.ones_like(y))  # not `torch.autograd.grad`, which PyTorch's counter cannot follow
    state = state_after(mixer, width, length) if mixer.causal else None
    return Cost(flops.get_total_flops(), written.bytes, state)


def exponent(short: float | None, long: float | None) -> float:
    """Return p where a cost grows as t^p from the short row to the long one: 0 constant, 1 linear, 2 quadratic."""
    return math.log(long / short) / math.log(LONG / SHORT) if short and long else 0.0


def _convolution_gradients(into: torch.Size, x: torch.Size, weight: torch.Size, *settings: Any, **others: Any) -> int:
    """Count each gradient as the convolution itself: PyTorch counts d times as many for the weight of d groups."""
    transposed, (for_input, for_weight, _) = settings[4], settings[-1]
    return (for_input + for_weight) * 2 * (x if transposed else into).numel() * weight[1:].numel()


class _Written(TorchDispatchMode):
    """Adds up the bytes of every operation's results; views write nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if not function.is_view:
            self.bytes += sum(x.numel() * x.element_size() for x in tree_leaves(found) if isinstance(x, torch.Tensor))
        return found
