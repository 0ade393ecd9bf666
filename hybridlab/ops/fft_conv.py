"""Long causal depthwise convolution along time, by the fast Fourier transform."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
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
        return _CircularConvolution.apply(x.to(dtype).mT, response).mT.to(x.dtype)


class _CircularConvolution(torch.autograd.Function):
    """y_t = Σ_s response_{t-s mod l} x_s for the first t of l points: x [b, d, t], response [d, l].

    Its gradients are correlations, by real transforms too: PyTorch's gradient of a real transform is a complex one of twice
    the work.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, response: Tensor) -> Tensor:
        t, length = x.shape[-1], response.shape[-1]
        spectra = torch.fft.rfft(x, n=length), torch.fft.rfft(response)
        ctx.save_for_backward(*spectra)
        ctx.sizes = t, length
        return torch.fft.irfft(spectra[0] * spectra[1], n=length)[..., :t]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x, response), (t, length) = ctx.saved_tensors, ctx.sizes
        arriving = torch.fft.rfft(gradient, n=length)
        into_x = torch.fft.irfft(arriving * response.conj(), n=length)[..., :t]
        return into_x, torch.fft.irfft((arriving * x.conj()).sum(0), n=length)


def _fast_length(least: int) -> int:
    """Return the smallest product of powers of two and at most one 3 or 5 that is at least `least`."""
    power = 1 << max(least - 1, 1).bit_length()
    return min(candidate for candidate in (power, power * 3 // 4, power * 5 // 8) if candidate >= least)
