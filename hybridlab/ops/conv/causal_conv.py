"""Short causal depthwise convolution along time."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from hybridlab.ops.conv.fft_conv import fft_conv
from hybridlab.ops.kernels.dispatch import short_conv_kernel_serves
from hybridlab.ops.kernels.launch import compiled_at_once
from hybridlab.ops.precision import autocast_off

FEW = 8  # taps: so many passes over the rows cost a CPU less than to turn them to PyTorch's convolution and back
MANY = 32  # taps: with more, the gradients of PyTorch's convolution cost more than Fourier transforms
# Gradients are made in pieces of so many numbers (512 KiB in float32): what one tap read is in the cache for the next, as are
# their products. No more pieces than so many, however long the rows are.
PIECE, PIECES = 2**17, 64


def shifted_causal_conv(
    x: Float[Tensor, "b t d"],
    weight: Float[Tensor, "d l"],
    bias: Float[Tensor, " d"] | None = None,
    past: Float[Tensor, "b l-1 d"] | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b l-1 d"]]:
    """Return y_t = bias + Σ_j weight_j x_{t-l+1+j}, and the last l-1 inputs; `past` is those before x, or zeros."""
    with autocast_off(x):
        joined, remembered = _join(x, weight.shape[1], past)
        shifts = (joined[:, j : j + x.shape[1]] * weight[:, j].to(x.dtype) for j in range(weight.shape[1]))
        y = sum(shifts, torch.zeros_like(x))
        return y if bias is None else y + bias.to(x.dtype), remembered


def causal_conv(
    x: Float[Tensor, "b t d"],
    weight: Float[Tensor, "d l"],
    bias: Float[Tensor, " d"] | None = None,
    past: Float[Tensor, "b l-1 d"] | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b l-1 d"]]:
    """Give what `shifted_causal_conv` gives: by one call of PyTorch's convolution, of few taps on a CPU tap by tap in place
    and on a GPU by kernels, of many by Fourier transforms."""
    with autocast_off(x):
        if x.numel() and short_conv_kernel_serves(x, weight.shape[1]):
            return _by_kernels(x, weight, bias, past)
        joined, remembered = _join(x, weight.shape[1], past)
        weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        # The meta device tells what a CPU would do.
        on_cpu = x.device.type in ("cpu", "meta")
        if on_cpu and x.dtype in (torch.float32, torch.float64) and weight.shape[1] <= FEW:
            return _tap_by_tap(joined.contiguous(), weight.contiguous(), bias), remembered
        if MANY < weight.shape[1] <= x.shape[1]:
            y = fft_conv(joined, weight.flip(-1))[:, weight.shape[1] - 1 :]
            return y if bias is None else y + bias, remembered
        return F.conv1d(joined.mT, weight[:, None], bias, groups=x.shape[2]).mT, remembered


@compiled_at_once
def _by_kernels(x: Tensor, weight: Tensor, bias: Tensor | None, past: Tensor | None) -> tuple[Tensor, Tensor]:
    from hybridlab.ops.kernels.short_conv import short_conv

    length = weight.shape[1]
    _, remembered = _join(x[:, max(x.shape[1] - length + 1, 0) :], length, past)
    rows, before = (x, 0) if past is None else (torch.cat([past.to(x.dtype), x], dim=1), length - 1)
    return short_conv(rows, weight.mT, bias, before), remembered


# Operators of their own, whose gradient is written by hand: that of slices would fill up and add whole rows.
@torch.library.custom_op("hybridlab::short_conv", mutates_args=())
def _tap_by_tap(joined: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    taps, t = weight.mT.contiguous(), joined.shape[1] - weight.shape[1] + 1
    windows = [joined[:, j : j + t] for j in range(len(taps))]  # what each tap sees, the oldest first
    y = windows[0] * taps[0] if bias is None else torch.addcmul(bias, windows[0], taps[0])
    for window, tap in zip(windows[1:], taps[1:], strict=True):
        y.addcmul_(window, tap)
    return y


@torch.library.custom_op("hybridlab::short_conv_backward", mutates_args=())
def _tap_by_tap_gradients(d_y: Tensor, joined: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    d_joined, taps = torch.zeros_like(joined), weight.mT.contiguous()
    count = min(-(-d_y.numel() // PIECE), PIECES) or 1  # of empty rows too
    pieces = d_y.split(-(-d_y.shape[1] // count), dim=1)
    products, start = d_y.new_zeros(len(taps), *pieces[0].shape), 0
    for piece in pieces:
        n = piece.shape[1]
        for j, tap in enumerate(taps):
            window = slice(start + j, start + j + n)
            d_joined[:, window].addcmul_(piece, tap)
            products[j, :, :n].addcmul_(piece, joined[:, window])
        start += n
    return d_joined, products.sum((1, 2)).mT.contiguous()


@_tap_by_tap.register_fake
def _(joined: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return joined.new_empty(joined.shape[0], joined.shape[1] - weight.shape[1] + 1, joined.shape[2])


@_tap_by_tap_gradients.register_fake
def _(d_y: Tensor, joined: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(joined), torch.empty_like(weight)


@register_flop_formula(torch.ops.hybridlab.short_conv)
def _(joined: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    """Count a product and a sum for each tap of each result."""
    return 2 * out_shape.numel() * weight[1]


@register_flop_formula(torch.ops.hybridlab.short_conv_backward)
def _(d_y: torch.Size, joined: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
    """Count twice as many."""
    return 4 * d_y.numel() * weight[1]


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.biased = inputs[2] is not None


def _gradients(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    return *_tap_by_tap_gradients(d_y, *ctx.saved_tensors), d_y.sum((0, 1)) if ctx.biased else None


_tap_by_tap.register_autograd(_gradients, setup_context=_remember)


def _join(x: Tensor, length: int, past: Tensor | None) -> tuple[Tensor, Tensor]:
    """Put the past before x; return it with its last l-1 tokens, in the dtype of the past."""
    kept = length - 1
    joined = F.pad(x, (0, 0, kept, 0)) if past is None else torch.cat([past, x.to(past.dtype)], dim=1)
    # A copy: a slice would keep the whole of `joined` in memory.
    return joined.to(x.dtype), joined[:, joined.shape[1] - kept :].clone()
