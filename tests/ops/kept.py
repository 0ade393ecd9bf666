"""The memory that an op saves for its backward pass."""

from collections.abc import Callable

import torch
from torch import Tensor


def saved_elements(run: Callable[[], object]) -> int:
    """Return how many elements a forward pass saves, counting each tensor once."""
    held: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        held[x.data_ptr()] = x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        run()
    return sum(held.values())
