"""Which fused kernels a mixer uses on a GPU, found from the ops that it calls on any device."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from hybridlab.ops.kernels.dispatch import record_kernel_use
from hybridlab.stack.layer import build_mixer
from hybridlab.stack.plan import Plan


@contextmanager
def kernels_of() -> Iterator[list[str]]:
    """Yield a list that names, after the block, the kernels that its ops have on a GPU.

    `Triton` stands for ours, `PyTorch` for its attention.
    """
    kernels: list[str] = []
    with record_kernel_use() as ours, _Attention() as attention:
        yield kernels
    kernels += ["Triton"] * any(not too_large for too_large in ours) + ["PyTorch"] * attention.called


def without_kernels(plan: Plan, length: int) -> list[str]:
    """Return a line for each mixer whose sizes are too large for its kernel."""
    mixers = {part.fingerprint: part for layer in plan.layers for part in layer.parts or (layer,)}
    lines = []
    for layer in mixers.values():
        with torch.device("meta"), torch.no_grad(), record_kernel_use() as noted:
            build_mixer(layer, plan.width, plan.causal)(torch.empty(1, length, plan.width))
        if too_large := ", ".join(dict.fromkeys(chain.from_iterable(noted))):
            lines.append(
                f"{layer.mixer}: no kernel takes the sizes of `{layer.where}` ({too_large}); PyTorch's operations run "
                "instead, several times slower"
            )
    return lines


class _Attention(TorchFunctionMode):
    """Records whether PyTorch's attention is called."""

    called = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.called |= function is F.scaled_dot_product_attention
        return function(*args, **(kwargs or {}))
