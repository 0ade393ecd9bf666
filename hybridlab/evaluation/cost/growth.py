"""How the cost of a mixer grows with the sequence length, counted on the meta device."""

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
    """The cost of one sequence: forward and backward of a training step, and the state after it."""

    flops: int  # by PyTorch's counter: matrix products, attention, convolutions
    written: int  # bytes that all operations write: the cost of element-wise work, scans, transforms
    state: int | None  # bytes; None for a mixer that is not decoded


def training_cost(mixer: Mixer, width: int, length: int) -> Cost:
    """Count forward and backward of a mixer on the meta device, for one sequence."""
    x = torch.empty(1, length, width, device="meta", requires_grad=True)
    corrected = {torch.ops.aten.convolution_backward: _convolution_gradients}
    with FlopCounterMode(display=False, custom_mapping=corrected) as flops, _Written() as written:
        y = mixer(x)
        y.backward(torch.ones_like(y))  # not `torch.autograd.grad`, which PyTorch's counter cannot follow
    state = state_after(mixer, width, length) if mixer.causal else None
    return Cost(flops.get_total_flops(), written.bytes, state)


def exponent(short: float | None, long: float | None) -> float:
    """Return the exponent p with which a cost grows as t^p: 0 constant, 1 linear, 2 quadratic."""
    return math.log(long / short) / math.log(LONG / SHORT) if short and long else 0.0


def _convolution_gradients(into: torch.Size, x: torch.Size, weight: torch.Size, *settings: Any, **others: Any) -> int:
    """Count each gradient like the convolution itself; PyTorch counts the weight of d groups d
    times."""
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
