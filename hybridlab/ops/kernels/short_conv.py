"""The short causal convolution as GPU kernels: one reads a row's tokens and writes what is filtered, one makes all gradients.

PyTorch's depthwise convolutions take channels first, so that rows of tokens are turned and turned back; a tap's read of a
token that another tap has read comes from a cache.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from hybridlab.ops.kernels.launch import launcher

TOKENS, CHANNELS = 32, 64  # of a program of two warps; each thread loads 16 bytes at once in half precision
AT_ONCE = 8  # taps whose loads are on the way together


@triton.jit
def _forward_kernel(
    x, taps, bias, y, t, d, before,
    length: tl.constexpr, at_once: tl.constexpr, biased: tl.constexpr, tokens: tl.constexpr, channels: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(2).to(tl.int64)
    i, c = tl.program_id(0) * tokens + tl.arange(0, tokens), tl.program_id(1) * channels + tl.arange(0, channels)
    channel = c < d
    found = tl.zeros([tokens, channels], tl.float32)
    if biased:
        found += tl.load(bias + c, mask=channel, other=0.0).to(tl.float32)[None, :]
    for first in range(0, length, at_once):
        for k in tl.static_range(at_once):
            j = first + k
            s = i + j + before - (length - 1)
            inside = ((s >= 0) & (s < t + before) & (j < length))[:, None] & channel[None, :]
            seen = tl.load(x + (row * (t + before) + s[:, None]) * d + c[None, :], mask=inside, other=0.0)
            tap = tl.load(taps + j * d + c, mask=channel & (j < length), other=0.0)
            found += tap.to(tl.float32)[None, :] * seen.to(tl.float32)
    written = (i < t)[:, None] & channel[None, :]
    tl.store(y + (row * t + i[:, None]) * d + c[None, :], found.to(y.dtype.element_ty), mask=written)


@triton.jit
def _gradients_kernel(
    x, taps, d_y, d_x, sums, t, d, before,
    length: tl.constexpr, at_once: tl.constexpr, tokens: tl.constexpr, channels: tl.constexpr,
):  # fmt: skip
    """What reaches a program's tokens; and its part of what reaches the taps and, last, the bias."""
    row = tl.program_id(2).to(tl.int64)
    s, c = tl.program_id(0) * tokens + tl.arange(0, tokens), tl.program_id(1) * channels + tl.arange(0, channels)
    channel = c < d
    place = (row * (t + before) + s[:, None]) * d + c[None, :]
    there = (s < t + before)[:, None] & channel[None, :]
    seen = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    found = tl.zeros([tokens, channels], tl.float32)
    part = (row * tl.num_programs(0) + tl.program_id(0)) * (length + 1) * d + c
    for first in range(0, length, at_once):
        for k in tl.static_range(at_once):
            j = first + k
            i = s - before + (length - 1) - j
            inside = ((i >= 0) & (i < t) & (j < length))[:, None] & channel[None, :]
            arriving = tl.load(d_y + (row * t + i[:, None]) * d + c[None, :], mask=inside, other=0.0).to(tl.float32)
            tap = tl.load(taps + j * d + c, mask=channel & (j < length), other=0.0)
            found += tap.to(tl.float32)[None, :] * arriving
            tl.store(sums + part + j * d, tl.sum(arriving * seen, 0), mask=channel & (j < length))
    tl.store(d_x + place, found.to(d_x.dtype.element_ty), mask=there)
    i = s - before  # the newest tap meets every output once
    inside = ((i >= 0) & (i < t))[:, None] & channel[None, :]
    arriving = tl.load(d_y + (row * t + i[:, None]) * d + c[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(sums + part + length * d, tl.sum(arriving, 0), mask=channel)


@triton_op("hybridlab::short_conv_by_kernels", mutates_args={})
def short_conv(x: Tensor, taps: Tensor, bias: Tensor | None, before: int) -> Tensor:
    """Return y_i = bias + Σ_j taps_j x_{i+j+before-(l-1)} for t tokens, [b t d] in the dtype of x; before its first token x is 0.

    x [b t+before d] in half precision or float32; taps [l d], the oldest first, and bias [d] in any.
    """
    x, taps = x.contiguous(), taps.contiguous()
    (b, rows, d), length = x.shape, len(taps)
    t = rows - before
    y = x.new_empty(b, t, d)
    launcher(_forward_kernel)[_grid(b, t, d)](
        x, taps, taps if bias is None else bias.contiguous(), y, t, d, before,
        length=length, at_once=min(length, AT_ONCE), biased=bias is not None, tokens=TOKENS, channels=CHANNELS, num_warps=2,
    )  # fmt: skip
    return y


@triton_op("hybridlab::short_conv_by_kernels_backward", mutates_args={})
def _gradients(x: Tensor, taps: Tensor, d_y: Tensor, before: int) -> tuple[Tensor, Tensor]:
    """Return what reaches x, and what reaches the taps and the bias, [l+1 d] in float32."""
    x, taps, d_y = x.contiguous(), taps.contiguous(), d_y.contiguous()
    (b, rows, d), length = x.shape, len(taps)
    d_x, grid = torch.empty_like(x), _grid(b, rows, d)
    sums = x.new_empty(b * grid[0], length + 1, d, dtype=torch.float32)
    launcher(_gradients_kernel)[grid](
        x, taps, d_y, d_x, sums, rows - before, d, before,
        length=length, at_once=min(length, AT_ONCE), tokens=TOKENS, channels=CHANNELS, num_warps=2,
    )  # fmt: skip
    return d_x, sums.sum(0)


def _grid(b: int, tokens: int, d: int) -> tuple[int, int, int]:
    return triton.cdiv(tokens, TOKENS), triton.cdiv(d, CHANNELS), b


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, taps, bias, before = inputs
    ctx.save_for_backward(x, taps)
    ctx.bias, ctx.before = None if bias is None else bias.dtype, before


def _backward(ctx: Any, d_y: Tensor) -> tuple[Any, ...]:
    x, taps = ctx.saved_tensors
    d_x, sums = _gradients(x, taps, d_y, ctx.before)
    return d_x, sums[:-1].to(taps.dtype), None if ctx.bias is None else sums[-1].to(ctx.bias), None


short_conv.register_autograd(_backward, setup_context=_save)
