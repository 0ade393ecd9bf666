"""Long causal depthwise convolution along time, by the fast Fourier transform."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.precision import accumulation_dtype, autocast_off


def direct_long_conv(
    x: Float[Tensor, "b t d"], kernel: Float[Tensor, "d l"], ahead: Float[Tensor, "d m"] | None = None
) -> Float[Tensor, "b t d"]:
    """Return y_t = Σ_j kernel_j x_{t-j} + Σ_j ahead_j x_{t+1+j}: the definition, O(t·(l + m))."""
    with autocast_off(x):
        wide = x.to(accumulation_dtype(x))
        y = torch.zeros_like(wide)
        for j in range(min(kernel.shape[1], x.shape[1])):
            y = y + F.pad(wide[:, : x.shape[1] - j], (0, 0, j, 0)) * kernel[:, j]
        for j in range(min(0 if ahead is None else ahead.shape[1], x.shape[1] - 1)):
            assert ahead is not None
            y = y + F.pad(wide[:, j + 1 :], (0, 0, 0, j + 1)) * ahead[:, j]
        return y.to(x.dtype)


def fft_conv(
    x: Float[Tensor, "b t d"], kernel: Float[Tensor, "d l"], ahead: Float[Tensor, "d m"] | None = None
) -> Float[Tensor, "b t d"]:
    """Give what `direct_long_conv` gives in O(t log t), in float32 at least (half precisions have no transform here).

    Transforms are long enough that nothing wraps around: with l + m + t - 1 points or more, not a circular convolution.
    """
    with autocast_off(x):
        t, dtype = x.shape[1], accumulation_dtype(x)
        kernel = kernel[:, :t].to(dtype)
        ahead = None if ahead is None else ahead[:, : t - 1].to(dtype)
        length = _fast_length(t + kernel.shape[1] - 1 + (0 if ahead is None else ahead.shape[1]))
        response = F.pad(kernel, (0, length - kernel.shape[1]))
        if ahead is not None:  # what looks ahead by j + 1 stands at -1 - j, that is, at the end
            response = response + F.pad(ahead.flip(-1), (length - ahead.shape[1], 0))
        spectrum = torch.fft.rfft(x.to(dtype).mT, n=length) * torch.fft.rfft(response, n=length)
        return torch.fft.irfft(spectrum, n=length)[..., :t].mT.to(x.dtype)


def _fast_length(least: int) -> int:
    """Return the smallest product of powers of two and at most one 3 or 5 that is at least `least`."""
    power = 1 << max(least - 1, 1).bit_length()
    return min(candidate for candidate in (power, power * 3 // 4, power * 5 // 8) if candidate >= least)
