"""The elementwise scan as GPU kernels, forward and backward: chunks from zero, a scan over their ends, then chunks again.

A program steps through the tokens of a chunk with some channels of the state in registers. Three passes, because the
second reading of a chunk costs less than stepping through a long row with few programs.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from hybridlab.ops.kernels.launch import launcher

CHUNK = 64  # tokens per program
CHANNELS = 128  # per program of one warp: 16 bytes per thread and load


@triton.jit
def _ends_kernel(x, log_decay, ends, totals, t, d, chunks,
                 chunk: tl.constexpr, channels: tl.constexpr, backwards: tl.constexpr):  # fmt: skip
    """Write what a chunk makes of a state of zero, and its log decay."""
    number, c = tl.program_id(0), tl.program_id(1) * channels + tl.arange(0, channels)
    row = tl.program_id(2).to(tl.int64)
    inside = c < d
    state, total = tl.zeros([channels], tl.float32), tl.zeros([channels], tl.float32)
    for step in range(chunk):
        token = number * chunk + (chunk - 1 - step if backwards else step)
        place = (row * t + token) * d + c
        here = inside & (token < t)
        term = tl.load(x + place, mask=here, other=0.0)
        log = tl.load(log_decay + place, mask=here, other=0.0)
        total += log
        state = tl.exp(log) * (state + term) if backwards else tl.exp(log) * state + term
    place = (row * chunks + number) * d + c
    tl.store(ends + place, state, mask=inside)
    tl.store(totals + place, total, mask=inside)


@triton.jit
def _starts_kernel(ends, totals, first, starts, last, d, chunks, channels: tl.constexpr, backwards: tl.constexpr):
    """Step over the chunks; four are loaded before the first of them is used, because a step is short and a load is not."""
    c, row = tl.program_id(0) * channels + tl.arange(0, channels), tl.program_id(1).to(tl.int64)
    inside = c < d
    state = tl.load(first + row * d + c, mask=inside, other=0.0)
    place = (row * chunks + (chunks - 1 if backwards else 0)) * d + c
    on = -d if backwards else d
    for block in range(0, chunks, 4):
        in0, in1 = inside & (block < chunks), inside & (block + 1 < chunks)
        in2, in3 = inside & (block + 2 < chunks), inside & (block + 3 < chunks)
        e0, e1 = tl.load(ends + place, mask=in0, other=0.0), tl.load(ends + place + on, mask=in1, other=0.0)
        e2, e3 = (
            tl.load(ends + place + 2 * on, mask=in2, other=0.0),
            tl.load(ends + place + 3 * on, mask=in3, other=0.0),
        )
        l0, l1 = tl.load(totals + place, mask=in0, other=0.0), tl.load(totals + place + on, mask=in1, other=0.0)
        l2 = tl.load(totals + place + 2 * on, mask=in2, other=0.0)
        l3 = tl.load(totals + place + 3 * on, mask=in3, other=0.0)
        after0 = tl.exp(l0) * state + e0
        after1 = tl.exp(l1) * after0 + e1
        after2 = tl.exp(l2) * after1 + e2
        tl.store(starts + place, state, mask=in0)
        tl.store(starts + place + on, after0, mask=in1)
        tl.store(starts + place + 2 * on, after1, mask=in2)
        tl.store(starts + place + 3 * on, after2, mask=in3)
        state = tl.exp(l3) * after2 + e3
        place += 4 * on
    tl.store(last + row * d + c, state, mask=inside)


@triton.jit
def _states_kernel(x, log_decay, starts, states, t, d, chunks, chunk: tl.constexpr, channels: tl.constexpr):
    number, c = tl.program_id(0), tl.program_id(1) * channels + tl.arange(0, channels)
    row = tl.program_id(2).to(tl.int64)
    inside = c < d
    state = tl.load(starts + (row * chunks + number) * d + c, mask=inside, other=0.0)
    for step in range(chunk):
        token = number * chunk + step
        place = (row * t + token) * d + c
        here = inside & (token < t)
        term = tl.load(x + place, mask=here, other=0.0)
        state = tl.exp(tl.load(log_decay + place, mask=here, other=0.0)) * state + term
        tl.store(states + place, state, mask=here)


@triton.jit
def _gradients_kernel(into, log_decay, states, first, starts, d_x, d_log_decay, t, d, chunks,
                      chunk: tl.constexpr, channels: tl.constexpr):  # fmt: skip
    """Step backwards: what reaches a state is the gradient of its x, and what of it reaches the one before decays."""
    number, c = tl.program_id(0), tl.program_id(1) * channels + tl.arange(0, channels)
    row = tl.program_id(2).to(tl.int64)
    inside = c < d
    carried = tl.load(starts + (row * chunks + number) * d + c, mask=inside, other=0.0)
    origin = tl.load(first + row * d + c, mask=inside, other=0.0)
    for step in range(chunk):
        token = number * chunk + chunk - 1 - step
        place = (row * t + token) * d + c
        here = inside & (token < t)
        arriving = tl.load(into + place, mask=here, other=0.0) + carried
        before = tl.where(token > 0, tl.load(states + place - d, mask=here & (token > 0), other=0.0), origin)
        carried = tl.exp(tl.load(log_decay + place, mask=here, other=0.0)) * arriving
        tl.store(d_x + place, arriving, mask=here)
        tl.store(d_log_decay + place, carried * before, mask=here)


@triton_op("hybridlab::elementwise_scan_by_kernels", mutates_args={})
def scan(x: Tensor, log_decay: Tensor, start: Tensor) -> Tensor:
    """Return all states [b t d] of x and log_decay [b t d] and start [b d], all in float32."""
    x, log_decay = x.contiguous(), log_decay.contiguous()
    (b, t, d), chunks = x.shape, triton.cdiv(x.shape[1], CHUNK)
    starts, _ = _chunk_starts(x, log_decay, start, backwards=False)
    states = torch.empty_like(x)
    launcher(_states_kernel)[(chunks, triton.cdiv(d, CHANNELS), b)](
        x, log_decay, starts, states, t, d, chunks, chunk=CHUNK, channels=CHANNELS, num_warps=1
    )
    return states


@triton_op("hybridlab::elementwise_scan_by_kernels_backward", mutates_args={})
def _gradients(into: Tensor, log_decay: Tensor, start: Tensor, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    into, log_decay, start, states = (each.contiguous() for each in (into, log_decay, start, states))
    (b, t, d), chunks = into.shape, triton.cdiv(into.shape[1], CHUNK)
    starts, d_start = _chunk_starts(into, log_decay, torch.zeros_like(start), backwards=True)
    d_x, d_log_decay = torch.empty_like(into), torch.empty_like(into)
    launcher(_gradients_kernel)[(chunks, triton.cdiv(d, CHANNELS), b)](
        into, log_decay, states, start, starts, d_x, d_log_decay, t, d, chunks,
        chunk=CHUNK, channels=CHANNELS, num_warps=1,
    )  # fmt: skip
    return d_x, d_log_decay, d_start


def _chunk_starts(x: Tensor, log_decay: Tensor, first: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
    """Return what each chunk starts from, and what is left after the last."""
    (b, t, d), chunks, blocks = x.shape, triton.cdiv(x.shape[1], CHUNK), triton.cdiv(x.shape[2], CHANNELS)
    ends, totals, starts = (x.new_empty(b, chunks, d) for _ in range(3))
    last, first = torch.empty_like(first, memory_format=torch.contiguous_format), first.contiguous()
    launcher(_ends_kernel)[(chunks, blocks, b)](
        x, log_decay, ends, totals, t, d, chunks,
        chunk=CHUNK, channels=CHANNELS, backwards=backwards, num_warps=1,
    )  # fmt: skip
    # Few programs, each of many steps: with fewer channels there are more of them side by side.
    launcher(_starts_kernel)[(triton.cdiv(d, 32), b)](
        ends, totals, first, starts, last, d, chunks, channels=32, backwards=backwards, num_warps=1
    )
    return starts, last


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:], output)


def _backward(ctx: Any, into: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(into, *ctx.saved_tensors)


scan.register_autograd(_backward, setup_context=_save)
