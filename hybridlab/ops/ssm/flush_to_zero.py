"""Flush vanishing values to zero: CPUs compute many times more slowly with subnormal numbers.

Powers that decay pass through the subnormal range on their way to zero. These functions return zero
below about √tiny, 1e-19 in float32, so that no product of two results is subnormal.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def flushed_exp(x: Tensor) -> Tensor:
    """Return e^x, or zero if it is below about √tiny."""
    return F.threshold(x, math.log(torch.finfo(x.dtype).tiny) / 2, -math.inf).exp()


def flush_to_zero(x: Tensor) -> Tensor:
    """Round x to multiples of 4 √tiny, and so to zero below half of that.

    In float32, values from 1e-11 on are unchanged. For float32 and float64 only, because the
    rounding would be coarse in half precision. The gradient is that of the identity and saves no
    tensor.
    """
    info = torch.finfo(x.dtype)
    # Adding and subtracting this offset rounds to multiples of its last digit.
    offset = 4 * info.tiny**0.5 / info.eps
    return (x + offset).sub_(offset)
