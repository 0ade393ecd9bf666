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
        rows = x.to(dtype)
        if x.device.type == "cuda":  # turned where a compiler sees it, which does so as it makes what is turned
            return _convolution_of_columns(rows.mT.contiguous(), response).mT.to(x.dtype)
        return _convolution_of_rows(rows.contiguous(), response).to(x.dtype)


def _circular(x: Float[Tensor, "b d t"], response: Float[Tensor, "d l"]) -> Float[Tensor, "b d t"]:
    """Return y_t = Σ_s response_{t-s mod l} x_s for the first t of l points."""
    length = response.shape[-1]
    # The response, which is least, is what is divided by l.
    spectrum = torch.fft.rfft(x, n=length) * torch.fft.rfft(response, norm="forward")
    return torch.fft.irfft(spectrum, n=length, norm="forward")[..., : x.shape[-1]].contiguous()


def _circular_gradients(arriving: Tensor, x: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
    """Return what reaches x and the response: correlations."""
    length = response.shape[-1]
    arriving, spectrum = (torch.fft.rfft(each, n=length) for each in (arriving, x))
    into_x = arriving * torch.fft.rfft(response, norm="forward").conj()
    into_x = torch.fft.irfft(into_x, n=length, norm="forward")[..., : x.shape[-1]].contiguous()
    return into_x, torch.fft.irfft((arriving * spectrum.conj()).sum(0), n=length)


# Operators of their own, with gradients by real transforms: PyTorch's gradient of a real transform is a complex one, of
# twice the work. What is kept for them are the rows, not their spectra, which are twice as large.
@torch.library.custom_op("hybridlab::convolution_of_columns", mutates_args=())
def _convolution_of_columns(x: Tensor, response: Tensor) -> Tensor:
    return _circular(x, response)


@torch.library.custom_op("hybridlab::convolution_of_columns_backward", mutates_args=())
def _columns_gradients(arriving: Tensor, x: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
    return _circular_gradients(arriving, x, response)


@torch.library.custom_op("hybridlab::convolution_of_rows", mutates_args=())
def _convolution_of_rows(x: Tensor, response: Tensor) -> Tensor:
    return _turned(_circular(_turned(x), response))


@_convolution_of_rows.register_fake
@_convolution_of_columns.register_fake
def _(x: Tensor, response: Tensor) -> Tensor:
    return torch.empty_like(x)


@_columns_gradients.register_fake
def _(arriving: Tensor, x: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(response)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients_of_columns(ctx: Any, arriving: Tensor) -> tuple[Tensor, Tensor]:
    return _columns_gradients(arriving.contiguous(), *ctx.saved_tensors)


def _gradients_of_rows(ctx: Any, arriving: Tensor) -> tuple[Tensor, Tensor]:
    x, response = ctx.saved_tensors
    into_x, into_response = _circular_gradients(_turned(arriving.contiguous()), _turned(x), response)
    return _turned(into_x), into_response


_convolution_of_columns.register_autograd(_gradients_of_columns, setup_context=_keep_inputs)
_convolution_of_rows.register_autograd(_gradients_of_rows, setup_context=_keep_inputs)


def _turned(x: Float[Tensor, "b m n"]) -> Float[Tensor, "b n m"]:
    """Return rows, which lie one behind the other, as columns that do."""
    # PyTorch copies one turned matrix in blocks, but a batch of them number by number, which takes eight times as long.
    turned = x.new_empty(x.shape[0], x.shape[2], x.shape[1])
    for row, into in zip(x, turned, strict=True):
        into.copy_(row.T)
    return turned


def _fast_length(least: int) -> int:
    """Return the smallest product of powers of two and at most one 3 or 5 that is at least `least`."""
    power = 1 << max(least - 1, 1).bit_length()
    return min(candidate for candidate in (power, power * 3 // 4, power * 5 // 8) if candidate >= least)
