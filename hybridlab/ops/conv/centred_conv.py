"""Convolution along time, centred on each token, with one filter per head.

Letters: b batch, h heads, t time, k width, l taps.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.precision import autocast_off

BLOCK = 64  # tokens per block: enough for a matrix product, and not much less than a block reads


def shifted_centred_conv(x: Float[Tensor, "b h t k"], weight: Float[Tensor, "h l"]) -> Float[Tensor, "b h t k"]:
    """Return y_t = Σ_j weight_j x_{t+j-(l-1)/2} for odd l, with zeros around the sequence."""
    with autocast_off(x):
        length, t = weight.shape[1], x.shape[2]
        padded = F.pad(x, (0, 0, length // 2, length // 2))
        weight = weight.to(x.dtype)
        shifts = (padded[:, :, j : j + t] * weight[:, j, None, None] for j in range(length))
        return sum(shifts, torch.zeros_like(x))


def centred_conv(x: Float[Tensor, "b h t k"], weight: Float[Tensor, "h l"]) -> Float[Tensor, "b h t k"]:
    """Compute `shifted_centred_conv` by one matrix product per block.

    Depthwise convolution kernels are slow for long filters.
    """
    with autocast_off(x):
        length, t = weight.shape[1], x.shape[2]
        padded = F.pad(x, (0, 0, length // 2, length // 2 + -t % BLOCK))
        window_length = BLOCK + length - 1
        windows = padded.unfold(2, window_length, BLOCK)  # b h blocks k window_length
        # Each row of the band matrix holds the filter one column further to the right. Repeating
        # the filter with period window_length + 1 builds it.
        band = (
            F.pad(weight.to(x.dtype), (0, BLOCK))
            .repeat(1, BLOCK)[:, : BLOCK * window_length]
            .unflatten(1, (BLOCK, window_length))
        )
        return (band[None, :, None] @ windows.mT).flatten(2, 3)[:, :, :t]
