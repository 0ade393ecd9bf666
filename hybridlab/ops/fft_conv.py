"""Long causal depthwise convolution along time, by the fast Fourier transform."""

from typing import Any

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
        kernel = kernel[:, :t].to(dtype).contiguous()
        ahead = None if ahead is None else ahead[:, : t - 1].to(dtype)
        length = _fast_length(t + kernel.shape[1] - 1 + (0 if ahead is None else ahead.shape[1]))
        response = F.pad(kernel, (0, length - kernel.shape[1]))
        if ahead is not None:  # what looks ahead by j + 1 stands at -1 - j, that is, at the end
            response = response + F.pad(ahead.flip(-1), (length - ahead.shape[1], 0))
        return _circular_convolution(x.to(dtype).contiguous(), response).to(x.dtype)


# An operator of its own, with its gradients as correlations by real transforms: PyTorch's gradient of a real transform is a
# complex one, of twice the work. What is kept for them are the rows, not their spectra, which are twice as large.
@torch.library.custom_op("hybridlab::circular_convolution", mutates_args=())
def _circular_convolution(x: Tensor, response: Tensor) -> Tensor:
    """Return y_t = Σ_s response_{t-s mod l} x_s for the first t of l points: x [b, t, d], response [d, l]."""
    length = response.shape[-1]
    spectrum = torch.fft.rfft(_turned(x), n=length) * torch.fft.rfft(response)
    return _turned(torch.fft.irfft(spectrum, n=length)[..., : x.shape[1]].contiguous())


@_circular_convolution.register_fake
def _(x: Tensor, response: Tensor) -> Tensor:
    return torch.empty_like(x)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return what reaches x and the response."""
    x, response = ctx.saved_tensors
    length = response.shape[-1]
    arriving, rows = (torch.fft.rfft(_turned(each), n=length) for each in (gradient.contiguous(), x))
    into_x = torch.fft.irfft(arriving * torch.fft.rfft(response).conj(), n=length)[..., : x.shape[1]].contiguous()
    return _turned(into_x), torch.fft.irfft((arriving * rows.conj()).sum(0), n=length)


_circular_convolution.register_autograd(_gradients, setup_context=_keep_inputs)


def _turned(x: Float[Tensor, "b m n"]) -> Float[Tensor, "b n m"]:
    """Return rows, which lie one behind the other, as columns that do."""
    if x.device.type != "cpu":
        return x.mT.contiguous()
    # PyTorch copies one turned matrix in blocks, but a batch of them number by number, which takes eight times as long.
    turned = x.new_empty(x.shape[0], x.shape[2], x.shape[1])
    for row, into in zip(x, turned, strict=True):
        into.copy_(row.T)
    return turned


def _fast_length(least: int) -> int:
    """Return the smallest product of powers of two and at most one 3 or 5 that is at least `least`."""
    power = 1 << max(least - 1, 1).bit_length()
    return min(candidate for candidate in (power, power * 3 // 4, power * 5 // 8) if candidate >= least)
