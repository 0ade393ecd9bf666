"""The precision of ops: autocast is switched off, and sums are in float32 at least."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast_off(like: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off on the device of `like`: an op chooses its precision from the dtype of
    its inputs."""
    # The meta device, on which costs are counted, has no autocast.
    return nullcontext() if like.is_meta else torch.autocast(like.device.type, enabled=False)


def accumulation_dtype(like: Tensor) -> torch.dtype:
    """Return the dtype of decays, prefix sums and recurrent states: float32, or float64 for float64
    inputs."""
    return torch.promote_types(like.dtype, torch.float32)
