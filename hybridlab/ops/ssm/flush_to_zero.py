"""Zeros in place of what has faded away: a CPU calculates many times as slowly with subnormal numbers.

Powers go through all of them on their way to zero. The functions leave no two numbers whose product is subnormal: they give
zero below about √tiny, 1e-19 in float32.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def flushed_exp(x: Tensor) -> Tensor:
    """Return e^x, or zero where it is below about √tiny."""
    return F.threshold(x, math.log(torch.finfo(x.dtype).tiny) / 2, -math.inf).exp()


def flushed(x: Tensor) -> Tensor:
    """Return x rounded to multiples of 4 √tiny: zero where it is below half of that, and itself from 1e-11 (in float32) on.

    For float32 and float64: in half precision that would be coarse. Nothing is kept for the gradient, which is that of x.
    """
    kind = torch.finfo(x.dtype)
    # Adding this and taking it away rounds to multiples of its last digit.
    number = 4 * kind.tiny**0.5 / kind.eps
    return (x + number).sub_(number)
