"""Short causal depthwise convolution along time."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.precision import autocast_off

FEW = 8  # taps: so many passes over the rows cost a CPU less than to turn them to PyTorch's convolution and back


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
    """Give what `shifted_causal_conv` gives, by one call of PyTorch's convolution or, on a CPU, tap by tap in place."""
    with autocast_off(x):
        joined, remembered = _join(x, weight.shape[1], past)
        weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and weight.shape[1] <= FEW:
            return _tap_by_tap(joined, weight, bias), remembered
        return F.conv1d(joined.mT, weight[:, None], bias, groups=x.shape[2]).mT, remembered


# Operators of their own, whose gradient is written by hand: that of slices would fill up and add whole rows.
@torch.library.custom_op("hybridlab::short_conv", mutates_args=())
def _tap_by_tap(joined: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    windows = _windows(joined, weight.shape[1])
    taps = weight.mT.contiguous()
    y = windows[0] * taps[0] if bias is None else torch.addcmul(bias, windows[0], taps[0])
    for window, tap in zip(windows[1:], taps[1:], strict=True):
        y.addcmul_(window, tap)
    return y


@torch.library.custom_op("hybridlab::short_conv_backward", mutates_args=())
def _tap_by_tap_gradients(d_y: Tensor, joined: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    d_joined, length = torch.zeros_like(joined), weight.shape[1]
    for window, tap in zip(_windows(d_joined, length), weight.mT.contiguous(), strict=True):
        window.addcmul_(d_y, tap)
    d_weight = torch.stack([(d_y * window).sum((0, 1)) for window in _windows(joined, length)], dim=1)
    return d_joined, d_weight


@_tap_by_tap.register_fake
def _(joined: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return joined.new_empty(joined.shape[0], joined.shape[1] - weight.shape[1] + 1, joined.shape[2])


@_tap_by_tap_gradients.register_fake
def _(d_y: Tensor, joined: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(joined), torch.empty_like(weight)


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.biased = inputs[2] is not None


def _gradients(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    return *_tap_by_tap_gradients(d_y, *ctx.saved_tensors), d_y.sum((0, 1)) if ctx.biased else None


_tap_by_tap.register_autograd(_gradients, setup_context=_remember)


def _windows(joined: Tensor, length: int) -> list[Tensor]:
    """Return what each tap sees of the rows, the oldest first."""
    t = joined.shape[1] - length + 1
    return [joined[:, j : j + t] for j in range(length)]


def _join(x: Tensor, length: int, past: Tensor | None) -> tuple[Tensor, Tensor]:
    """Put the past before x; return it with its last l-1 tokens, in the dtype of the past."""
    kept = length - 1
    joined = F.pad(x, (0, 0, kept, 0)) if past is None else torch.cat([past, x.to(past.dtype)], dim=1)
    # A copy: a slice would keep the whole of `joined` in memory.
    return joined.to(x.dtype), joined[:, joined.shape[1] - kept :].clone()
