"""Going on with a long causal convolution: the outputs of a piece, given the inputs before it."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.conv.fft_conv import fft_conv
from hybridlab.ops.precision import accumulation_dtype, autocast_off

# For fewer tokens than this a sum over the past costs less than transforming it.
FEW = 16


def continued_conv(
    x: Float[Tensor, "b n d"], past: Float[Tensor, "b p d"], kernel: Float[Tensor, "d l"]
) -> Float[Tensor, "b n d"]:
    """Return y_t = Σ_j kernel_j x_{t-j} for the tokens of x, where `past` stands before them and zeros before that."""
    with autocast_off(x):
        n, seen = x.shape[1], past.shape[1] + x.shape[1]
        joined, kernel = torch.cat([past.to(x.dtype), x], dim=1), kernel[:, :seen]
        if n >= FEW:
            return fft_conv(joined, kernel)[:, -n:]
        dtype, length = accumulation_dtype(x), kernel.shape[1]
        needed = F.pad(joined.to(dtype), (0, 0, max(length - 1 + n - seen, 0), 0))[:, -(length - 1 + n) :]
        return F.conv1d(needed.mT, kernel.to(dtype).flip(-1)[:, None], groups=x.shape[2]).mT.to(x.dtype)
