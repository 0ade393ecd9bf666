"""Convolution along time, centred on each token, with one filter per head."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.precision import autocast_off

# Tokens of a block: enough for a matrix product, and not much less than what it reads.
BLOCK = 64


def shifted_centred_conv(x: Float[Tensor, "b h t k"], weight: Float[Tensor, "h l"]) -> Float[Tensor, "b h t k"]:
    """Return y_t = Σ_j weight_j x_{t+j-(l-1)/2}, with zeros around the row; l is odd."""
    with autocast_off(x):
        length, t = weight.shape[1], x.shape[2]
        around = F.pad(x, (0, 0, length // 2, length // 2))
        weight = weight.to(x.dtype)
        shifts = (around[:, :, j : j + t] * weight[:, j, None, None] for j in range(length))
        return sum(shifts, torch.zeros_like(x))


def centred_conv(x: Float[Tensor, "b h t k"], weight: Float[Tensor, "h l"]) -> Float[Tensor, "b h t k"]:
    """Give what `shifted_centred_conv` gives, by one matrix product per block: depthwise kernels are slow at length."""
    with autocast_off(x):
        length, t = weight.shape[1], x.shape[2]
        around = F.pad(x, (0, 0, length // 2, length // 2 + -t % BLOCK))
        read = BLOCK + length - 1
        windows = around.unfold(2, read, BLOCK)  # b h blocks k read
        # The filter, one column further to the right in each row: repeating it with a period of read + 1 does that.
        band = F.pad(weight.to(x.dtype), (0, BLOCK)).repeat(1, BLOCK)[:, : BLOCK * read].unflatten(1, (BLOCK, read))
        return (band[None, :, None] @ windows.mT).flatten(2, 3)[:, :, :t]
