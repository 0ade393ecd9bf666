"""Whose fused kernels serve a mixer on a GPU: found by watching which ops it calls, wherever it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from hybridlab.ops.op import kernels_noted


@contextmanager
def kernels_of() -> Iterator[list[str]]:
    """Give a list that holds, after the block, whose kernels its ops have on a GPU: Triton (ours), PyTorch (attention)."""
    kernels: list[str] = []
    with kernels_noted() as ours, _Attention() as attention:
        yield kernels
    kernels += ["Triton"] * bool(ours) + ["PyTorch"] * attention.called


class _Attention(TorchFunctionMode):
    """Sees whether PyTorch's attention is called: its other ops are there on every device."""

    called = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.called |= function is F.scaled_dot_product_attention
        return function(*args, **(kwargs or {}))
