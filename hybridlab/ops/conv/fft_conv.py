"""Long depthwise convolution along time by fast Fourier transforms.

It is causal, or has an anticausal part too.
Letters: b batch, t time, d channels, l and m taps of the causal and the anticausal kernel.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.precision import accumulation_dtype, autocast_off


def direct_long_conv(
    x: Float[Tensor, "b t d"], kernel: Float[Tensor, "d l"], anticausal: Float[Tensor, "d m"] | None = None
) -> Float[Tensor, "b t d"]:
    """Compute y_t = Σ_j kernel_j x_{t-j} + Σ_j anticausal_j x_{t+1+j} directly, in O(t·(l + m))."""
    with autocast_off(x):
        wide = x.to(accumulation_dtype(x))
        y = torch.zeros_like(wide)
        for j in range(min(kernel.shape[1], x.shape[1])):
            y = y + F.pad(wide[:, : x.shape[1] - j], (0, 0, j, 0)) * kernel[:, j]
        for j in range(min(0 if anticausal is None else anticausal.shape[1], x.shape[1] - 1)):
            assert anticausal is not None
            y = y + F.pad(wide[:, j + 1 :], (0, 0, 0, j + 1)) * anticausal[:, j]
        return y.to(x.dtype)


def fft_conv(
    x: Float[Tensor, "b t d"], kernel: Float[Tensor, "d l"], anticausal: Float[Tensor, "d m"] | None = None
) -> Float[Tensor, "b t d"]:
    """Compute `direct_long_conv` in O(t log t), in at least float32.

    Half precision has no transforms. A transform has at least l + m + t - 1 points, so that the
    circular convolution does not wrap around.
    """
    with autocast_off(x):
        t, dtype = x.shape[1], accumulation_dtype(x)
        kernel = kernel[:, :t].to(dtype).contiguous()
        anticausal = None if anticausal is None else anticausal[:, : t - 1].to(dtype)
        length = _fast_length(t + kernel.shape[1] - 1 + (0 if anticausal is None else anticausal.shape[1]))
        response = F.pad(kernel, (0, length - kernel.shape[1]))
        if anticausal is not None:  # tap j looks ahead by j + 1: its index is -1 - j, at the end
            response = response + F.pad(anticausal.flip(-1), (length - anticausal.shape[1], 0))
        x_wide = x.to(dtype)
        if x.device.type == "cuda":  # a compiler fuses this transposition into the preceding operation
            return _conv_channels_first(x_wide.mT.contiguous(), response).mT.to(x.dtype)
        return _conv_channels_last(x_wide.contiguous(), response).to(x.dtype)


def _circular_conv(x: Float[Tensor, "b d t"], response: Float[Tensor, "d l"]) -> Float[Tensor, "b d t"]:
    """Return y_t = Σ_s response_{t-s mod l} x_s for the first t of l points."""
    length = response.shape[-1]
    # The division by l is applied to the response, the smallest tensor.
    spectrum = torch.fft.rfft(x, n=length) * torch.fft.rfft(response, norm="forward")
    return torch.fft.irfft(spectrum, n=length, norm="forward")[..., : x.shape[-1]].contiguous()


def _circular_gradients(grad_y: Tensor, x: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and the response, which are correlations."""
    length = response.shape[-1]
    grad_spectrum, x_spectrum = (torch.fft.rfft(each, n=length) for each in (grad_y, x))
    grad_x_spectrum = grad_spectrum * torch.fft.rfft(response, norm="forward").conj()
    grad_x = torch.fft.irfft(grad_x_spectrum, n=length, norm="forward")[..., : x.shape[-1]].contiguous()
    return grad_x, torch.fft.irfft((grad_spectrum * x_spectrum.conj()).sum(0), n=length)


# Custom operators with gradients by real transforms: PyTorch's gradient of a real transform is a
# complex transform, which is twice the work. They save the inputs, not the spectra, which are twice
# as large.
@torch.library.custom_op("hybridlab::conv_channels_first", mutates_args=())
def _conv_channels_first(x: Tensor, response: Tensor) -> Tensor:
    return _circular_conv(x, response)


@torch.library.custom_op("hybridlab::conv_channels_first_backward", mutates_args=())
def _conv_channels_first_backward(grad_y: Tensor, x: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
    return _circular_gradients(grad_y, x, response)


@torch.library.custom_op("hybridlab::conv_channels_last", mutates_args=())
def _conv_channels_last(x: Tensor, response: Tensor) -> Tensor:
    return _transpose(_circular_conv(_transpose(x), response))


@_conv_channels_last.register_fake
@_conv_channels_first.register_fake
def _(x: Tensor, response: Tensor) -> Tensor:
    return torch.empty_like(x)


@_conv_channels_first_backward.register_fake
def _(grad_y: Tensor, x: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(response)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward_channels_first(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor]:
    return _conv_channels_first_backward(grad_y.contiguous(), *ctx.saved_tensors)


def _backward_channels_last(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor]:
    x, response = ctx.saved_tensors
    grad_x, grad_response = _circular_gradients(_transpose(grad_y.contiguous()), _transpose(x), response)
    return _transpose(grad_x), grad_response


_conv_channels_first.register_autograd(_backward_channels_first, setup_context=_setup_context)
_conv_channels_last.register_autograd(_backward_channels_last, setup_context=_setup_context)


def _transpose(x: Float[Tensor, "b m n"]) -> Float[Tensor, "b n m"]:
    """Return the transposed matrices, contiguous in memory."""
    # PyTorch copies a single transposed matrix in blocks, but a batch of them element by element,
    # eight times slower.
    out = x.new_empty(x.shape[0], x.shape[2], x.shape[1])
    for matrix, target in zip(x, out, strict=True):
        target.copy_(matrix.T)
    return out


def _fast_length(least: int) -> int:
    """Return the smallest 2^n, 3·2^n or 5·2^n that is at least `least`."""
    power = 1 << max(least - 1, 1).bit_length()
    return min(candidate for candidate in (power, power * 3 // 4, power * 5 // 8) if candidate >= least)
