"""A long causal convolution continued over a chunk, given the inputs before it.

Letters: b batch, n tokens of the chunk, p past tokens, d channels, l taps.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.conv.fft_conv import fft_conv
from hybridlab.ops.precision import accumulation_dtype, autocast_off

MIN_FFT_TOKENS = 16  # for fewer tokens, a sum over the past costs less than its Fourier transform


def continued_conv(
    x: Float[Tensor, "b n d"], past: Float[Tensor, "b p d"], kernel: Float[Tensor, "d l"]
) -> Float[Tensor, "b n d"]:
    """Return y_t = Σ_j kernel_j x_{t-j} for the tokens of x, which follow `past` (and zeros)."""
    with autocast_off(x):
        n, total = x.shape[1], past.shape[1] + x.shape[1]
        inputs, kernel = torch.cat([past.to(x.dtype), x], dim=1), kernel[:, :total]
        if n >= MIN_FFT_TOKENS:
            return fft_conv(inputs, kernel)[:, -n:]
        dtype, length = accumulation_dtype(x), kernel.shape[1]
        window = F.pad(inputs.to(dtype), (0, 0, max(length - 1 + n - total, 0), 0))[:, -(length - 1 + n) :]
        return F.conv1d(window.mT, kernel.to(dtype).flip(-1)[:, None], groups=x.shape[2]).mT.to(x.dtype)
