"""GPU kernels for the short causal convolution: one filters the tokens of a sequence, one computes
all gradients.

PyTorch's depthwise convolutions want channels first, which costs a transpose before and after. Taps
that read the same token after one another find it in a cache.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from hybridlab.ops.kernels.launch import launcher

TOKENS, CHANNELS = 32, 64  # per program of two warps; in half precision each thread loads 16 bytes at once
AT_ONCE = 8  # taps whose loads are in flight together


@triton.jit
def _forward_kernel(
    x, taps, bias, y, t, d, past,
    length: tl.constexpr, at_once: tl.constexpr, biased: tl.constexpr, tokens: tl.constexpr, channels: tl.constexpr,
):  # fmt: skip
    seq = tl.program_id(2).to(tl.int64)
    i, c = tl.program_id(0) * tokens + tl.arange(0, tokens), tl.program_id(1) * channels + tl.arange(0, channels)
    channel = c < d
    acc = tl.zeros([tokens, channels], tl.float32)
    if biased:
        acc += tl.load(bias + c, mask=channel, other=0.0).to(tl.float32)[None, :]
    for first in range(0, length, at_once):
        for k in tl.static_range(at_once):
            j = first + k
            s = i + j + past - (length - 1)
            inside = ((s >= 0) & (s < t + past) & (j < length))[:, None] & channel[None, :]
            inputs = tl.load(x + (seq * (t + past) + s[:, None]) * d + c[None, :], mask=inside, other=0.0)
            tap = tl.load(taps + j * d + c, mask=channel & (j < length), other=0.0)
            acc += tap.to(tl.float32)[None, :] * inputs.to(tl.float32)
    written = (i < t)[:, None] & channel[None, :]
    tl.store(y + (seq * t + i[:, None]) * d + c[None, :], acc.to(y.dtype.element_ty), mask=written)


@triton.jit
def _gradients_kernel(
    x, taps, d_y, d_x, partials, t, d, past,
    length: tl.constexpr, at_once: tl.constexpr, tokens: tl.constexpr, channels: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of a program's tokens, and its share of the gradients of the taps and,
    last, of the bias."""
    seq = tl.program_id(2).to(tl.int64)
    s, c = tl.program_id(0) * tokens + tl.arange(0, tokens), tl.program_id(1) * channels + tl.arange(0, channels)
    channel = c < d
    offset = (seq * (t + past) + s[:, None]) * d + c[None, :]
    valid = (s < t + past)[:, None] & channel[None, :]
    inputs = tl.load(x + offset, mask=valid, other=0.0).to(tl.float32)
    acc = tl.zeros([tokens, channels], tl.float32)
    slot = (seq * tl.num_programs(0) + tl.program_id(0)) * (length + 1) * d + c
    for first in range(0, length, at_once):
        for k in tl.static_range(at_once):
            j = first + k
            i = s - past + (length - 1) - j
            inside = ((i >= 0) & (i < t) & (j < length))[:, None] & channel[None, :]
            grad_y = tl.load(d_y + (seq * t + i[:, None]) * d + c[None, :], mask=inside, other=0.0).to(tl.float32)
            tap = tl.load(taps + j * d + c, mask=channel & (j < length), other=0.0)
            acc += tap.to(tl.float32)[None, :] * grad_y
            tl.store(partials + slot + j * d, tl.sum(grad_y * inputs, 0), mask=channel & (j < length))
    tl.store(d_x + offset, acc.to(d_x.dtype.element_ty), mask=valid)
    i = s - past  # the newest tap reads every position once
    inside = ((i >= 0) & (i < t))[:, None] & channel[None, :]
    grad_y = tl.load(d_y + (seq * t + i[:, None]) * d + c[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(partials + slot + length * d, tl.sum(grad_y, 0), mask=channel)


@triton_op("hybridlab::short_conv_by_kernels", mutates_args={})
def short_conv(x: Tensor, taps: Tensor, bias: Tensor | None, past: int) -> Tensor:
    """Return y_i = bias + Σ_j taps_j x_{i+j+past-(l-1)} for t tokens, [b t d] in the dtype of x;
    before its first token x is 0.

    x [b t+past d] is in half precision or float32; taps [l d], the oldest first, and bias [d] are
    in any precision.
    """
    x, taps = x.contiguous(), taps.contiguous()
    (b, tokens, d), length = x.shape, len(taps)
    t = tokens - past
    y = x.new_empty(b, t, d)
    launcher(_forward_kernel)[_grid(b, t, d)](
        x, taps, taps if bias is None else bias.contiguous(), y, t, d, past,
        length=length, at_once=min(length, AT_ONCE), biased=bias is not None, tokens=TOKENS,
        channels=CHANNELS, num_warps=2,
    )  # fmt: skip
    return y


@triton_op("hybridlab::short_conv_by_kernels_backward", mutates_args={})
def _gradients(x: Tensor, taps: Tensor, d_y: Tensor, past: int) -> tuple[Tensor, Tensor]:
    """Return the gradient of x, and that of the taps and the bias, [l+1 d] in float32."""
    x, taps, d_y = x.contiguous(), taps.contiguous(), d_y.contiguous()
    (b, tokens, d), length = x.shape, len(taps)
    d_x, grid = torch.empty_like(x), _grid(b, tokens, d)
    partials = x.new_empty(b * grid[0], length + 1, d, dtype=torch.float32)
    launcher(_gradients_kernel)[grid](
        x, taps, d_y, d_x, partials, tokens - past, d, past,
        length=length, at_once=min(length, AT_ONCE), tokens=TOKENS, channels=CHANNELS, num_warps=2,
    )  # fmt: skip
    return d_x, partials.sum(0)


def _grid(b: int, tokens: int, d: int) -> tuple[int, int, int]:
    return triton.cdiv(tokens, TOKENS), triton.cdiv(d, CHANNELS), b


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, taps, bias, past = inputs
    ctx.save_for_backward(x, taps)
    ctx.bias, ctx.past = None if bias is None else bias.dtype, past


def _backward(ctx: Any, d_y: Tensor) -> tuple[Any, ...]:
    x, taps = ctx.saved_tensors
    d_x, partials = _gradients(x, taps, d_y, ctx.past)
    return d_x, partials[:-1].to(taps.dtype), None if ctx.bias is None else partials[-1].to(ctx.bias), None


short_conv.register_autograd(_backward, setup_context=_save)
