"""In which precision an op works: what autocast must not touch, and what is summed in float32 at least."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast_off(like: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off where `like` lies: an op chooses its own precision, from the dtype of its inputs."""
    # The meta device, on which costs are counted, has no autocast to switch off.
    return nullcontext() if like.is_meta else torch.autocast(like.device.type, enabled=False)


def accumulation_dtype(like: Tensor) -> torch.dtype:
    """Return the dtype of decays, prefix sums and recurrent states: float32, or float64 for float64 inputs."""
    return torch.promote_types(like.dtype, torch.float32)
