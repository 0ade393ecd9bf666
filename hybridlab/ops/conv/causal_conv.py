"""Short causal depthwise convolution along time.

Letters: b batch, t time, d channels, l taps.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from hybridlab.ops.conv.fft_conv import fft_conv
from hybridlab.ops.kernels.dispatch import can_use_short_conv_kernel
from hybridlab.ops.kernels.launch import compiled_at_once
from hybridlab.ops.precision import autocast_off

# Up to this many taps, one pass per tap costs a CPU less than transposing for PyTorch's
# convolution.
MAX_DIRECT_TAPS = 8
# With more taps, the gradients of PyTorch's convolution cost more than Fourier transforms.
MAX_CONV1D_TAPS = 32
# The backward pass works on chunks of this many elements (512 KiB in float32), so that inputs and
# products stay in the cache from one tap to the next. Long sequences use longer chunks instead of
# more than MAX_CHUNKS.
CHUNK_ELEMENTS, MAX_CHUNKS = 2**17, 64


def shifted_causal_conv(
    x: Float[Tensor, "b t d"],
    weight: Float[Tensor, "d l"],
    bias: Float[Tensor, " d"] | None = None,
    past: Float[Tensor, "b l-1 d"] | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b l-1 d"]]:
    """Return y_t = bias + Σ_j weight_j x_{t-l+1+j}, and the last l-1 inputs.

    `past` holds the l-1 inputs before x; None means zeros.
    """
    with autocast_off(x):
        padded, next_past = _prepend_past(x, weight.shape[1], past)
        shifts = (padded[:, j : j + x.shape[1]] * weight[:, j].to(x.dtype) for j in range(weight.shape[1]))
        y = sum(shifts, torch.zeros_like(x))
        return y if bias is None else y + bias.to(x.dtype), next_past


def causal_conv(
    x: Float[Tensor, "b t d"],
    weight: Float[Tensor, "d l"],
    bias: Float[Tensor, " d"] | None = None,
    past: Float[Tensor, "b l-1 d"] | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b l-1 d"]]:
    """Compute `shifted_causal_conv` by the fastest method for the device and the number of taps.

    These are GPU kernels, one pass per tap in place (few taps on a CPU), Fourier transforms (many
    taps), and PyTorch's convolution.
    """
    with autocast_off(x):
        if x.numel() and can_use_short_conv_kernel(x, weight.shape[1]):
            return _run_kernels(x, weight, bias, past)
        padded, next_past = _prepend_past(x, weight.shape[1], past)
        weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        # The meta device follows the CPU, so that costs are counted for it.
        on_cpu = x.device.type in ("cpu", "meta")
        if on_cpu and x.dtype in (torch.float32, torch.float64) and weight.shape[1] <= MAX_DIRECT_TAPS:
            return _tap_by_tap(padded.contiguous(), weight.contiguous(), bias), next_past
        if MAX_CONV1D_TAPS < weight.shape[1] <= x.shape[1]:
            y = fft_conv(padded, weight.flip(-1))[:, weight.shape[1] - 1 :]
            return y if bias is None else y + bias, next_past
        return F.conv1d(padded.mT, weight[:, None], bias, groups=x.shape[2]).mT, next_past


@compiled_at_once
def _run_kernels(x: Tensor, weight: Tensor, bias: Tensor | None, past: Tensor | None) -> tuple[Tensor, Tensor]:
    from hybridlab.ops.kernels.short_conv import short_conv

    length = weight.shape[1]
    _, next_past = _prepend_past(x[:, max(x.shape[1] - length + 1, 0) :], length, past)
    inputs, offset = (x, 0) if past is None else (torch.cat([past.to(x.dtype), x], dim=1), length - 1)
    return short_conv(inputs, weight.mT, bias, offset), next_past


# Custom operators with a handwritten gradient: that of slices would pad and add whole sequences.
@torch.library.custom_op("hybridlab::short_conv", mutates_args=())
def _tap_by_tap(padded: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    taps, t = weight.mT.contiguous(), padded.shape[1] - weight.shape[1] + 1
    windows = [padded[:, j : j + t] for j in range(len(taps))]  # the inputs of each tap, oldest first
    y = windows[0] * taps[0] if bias is None else torch.addcmul(bias, windows[0], taps[0])
    for window, tap in zip(windows[1:], taps[1:], strict=True):
        y.addcmul_(window, tap)
    return y


@torch.library.custom_op("hybridlab::short_conv_backward", mutates_args=())
def _tap_by_tap_gradients(grad_y: Tensor, padded: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    grad_padded, taps = torch.zeros_like(padded), weight.mT.contiguous()
    num_chunks = min(-(-grad_y.numel() // CHUNK_ELEMENTS), MAX_CHUNKS) or 1  # at least one, for empty sequences
    chunks = grad_y.split(-(-grad_y.shape[1] // num_chunks), dim=1)
    products, start = grad_y.new_zeros(len(taps), *chunks[0].shape), 0
    for chunk in chunks:
        n = chunk.shape[1]
        for j, tap in enumerate(taps):
            window = slice(start + j, start + j + n)
            grad_padded[:, window].addcmul_(chunk, tap)
            products[j, :, :n].addcmul_(chunk, padded[:, window])
        start += n
    return grad_padded, products.sum((1, 2)).mT.contiguous()


@_tap_by_tap.register_fake
def _(padded: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return padded.new_empty(padded.shape[0], padded.shape[1] - weight.shape[1] + 1, padded.shape[2])


@_tap_by_tap_gradients.register_fake
def _(grad_y: Tensor, padded: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(padded), torch.empty_like(weight)


@register_flop_formula(torch.ops.hybridlab.short_conv)
def _(padded: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    """Count a product and a sum per tap and output."""
    return 2 * out_shape.numel() * weight[1]


@register_flop_formula(torch.ops.hybridlab.short_conv_backward)
def _(grad_y: torch.Size, padded: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
    """Count twice the FLOPs of the forward pass."""
    return 4 * grad_y.numel() * weight[1]


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.has_bias = inputs[2] is not None


def _backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    return *_tap_by_tap_gradients(grad_y, *ctx.saved_tensors), grad_y.sum((0, 1)) if ctx.has_bias else None


_tap_by_tap.register_autograd(_backward, setup_context=_setup_context)


def _prepend_past(x: Tensor, length: int, past: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return x with the past before it, and the last l-1 tokens in the dtype of the past."""
    size = length - 1
    padded = F.pad(x, (0, 0, size, 0)) if past is None else torch.cat([past, x.to(past.dtype)], dim=1)
    # A copy, because a slice would keep all of `padded` in memory.
    return padded.to(x.dtype), padded[:, padded.shape[1] - size :].clone()
