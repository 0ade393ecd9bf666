"""GPU kernels for the elementwise scan, forward and backward: chunks from zero, a scan over their
ends, then chunks again.

A program steps through the tokens of a chunk with some channels of the state in registers. There
are three passes, because reading a chunk twice costs less than stepping through a long sequence
with few programs.
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
def _ends_kernel(x, log_decay, ends, total_decays, t, d, chunks,
                 chunk: tl.constexpr, channels: tl.constexpr, reverse: tl.constexpr):  # fmt: skip
    """Store the state that a chunk reaches from zero, and the chunk's log decay."""
    chunk_index, c = tl.program_id(0), tl.program_id(1) * channels + tl.arange(0, channels)
    seq = tl.program_id(2).to(tl.int64)
    channel = c < d
    state, total_decay = tl.zeros([channels], tl.float32), tl.zeros([channels], tl.float32)
    for step in range(chunk):
        token = chunk_index * chunk + (chunk - 1 - step if reverse else step)
        offset = (seq * t + token) * d + c
        valid = channel & (token < t)
        term = tl.load(x + offset, mask=valid, other=0.0)
        log_d = tl.load(log_decay + offset, mask=valid, other=0.0)
        total_decay += log_d
        state = tl.exp(log_d) * (state + term) if reverse else tl.exp(log_d) * state + term
    offset = (seq * chunks + chunk_index) * d + c
    tl.store(ends + offset, state, mask=channel)
    tl.store(total_decays + offset, total_decay, mask=channel)


@triton.jit
def _starts_kernel(ends, total_decays, initial, starts, last, d, chunks, channels: tl.constexpr, reverse: tl.constexpr):
    """Step over the chunks; four are loaded before the first is used, because steps are short and
    loads are long."""
    c, seq = tl.program_id(0) * channels + tl.arange(0, channels), tl.program_id(1).to(tl.int64)
    channel = c < d
    state = tl.load(initial + seq * d + c, mask=channel, other=0.0)
    offset = (seq * chunks + (chunks - 1 if reverse else 0)) * d + c
    stride = -d if reverse else d
    for block in range(0, chunks, 4):
        valid0, valid1 = channel & (block < chunks), channel & (block + 1 < chunks)
        valid2, valid3 = channel & (block + 2 < chunks), channel & (block + 3 < chunks)
        e0, e1 = tl.load(ends + offset, mask=valid0, other=0.0), tl.load(ends + offset + stride, mask=valid1, other=0.0)
        e2, e3 = (
            tl.load(ends + offset + 2 * stride, mask=valid2, other=0.0),
            tl.load(ends + offset + 3 * stride, mask=valid3, other=0.0),
        )
        l0, l1 = (
            tl.load(total_decays + offset, mask=valid0, other=0.0),
            tl.load(total_decays + offset + stride, mask=valid1, other=0.0),
        )
        l2 = tl.load(total_decays + offset + 2 * stride, mask=valid2, other=0.0)
        l3 = tl.load(total_decays + offset + 3 * stride, mask=valid3, other=0.0)
        after0 = tl.exp(l0) * state + e0
        after1 = tl.exp(l1) * after0 + e1
        after2 = tl.exp(l2) * after1 + e2
        tl.store(starts + offset, state, mask=valid0)
        tl.store(starts + offset + stride, after0, mask=valid1)
        tl.store(starts + offset + 2 * stride, after1, mask=valid2)
        tl.store(starts + offset + 3 * stride, after2, mask=valid3)
        state = tl.exp(l3) * after2 + e3
        offset += 4 * stride
    tl.store(last + seq * d + c, state, mask=channel)


@triton.jit
def _states_kernel(x, log_decay, starts, states, t, d, chunks, chunk: tl.constexpr, channels: tl.constexpr):
    chunk_index, c = tl.program_id(0), tl.program_id(1) * channels + tl.arange(0, channels)
    seq = tl.program_id(2).to(tl.int64)
    channel = c < d
    state = tl.load(starts + (seq * chunks + chunk_index) * d + c, mask=channel, other=0.0)
    for step in range(chunk):
        token = chunk_index * chunk + step
        offset = (seq * t + token) * d + c
        valid = channel & (token < t)
        term = tl.load(x + offset, mask=valid, other=0.0)
        state = tl.exp(tl.load(log_decay + offset, mask=valid, other=0.0)) * state + term
        tl.store(states + offset, state, mask=valid)


@triton.jit
def _gradients_kernel(d_states, log_decay, states, initial, starts, d_x, d_log_decay, t, d, chunks,
                      chunk: tl.constexpr, channels: tl.constexpr):  # fmt: skip
    """Step backward: the gradient of a state is that of its x; decayed, it goes on to the state
    before."""
    chunk_index, c = tl.program_id(0), tl.program_id(1) * channels + tl.arange(0, channels)
    seq = tl.program_id(2).to(tl.int64)
    channel = c < d
    carried = tl.load(starts + (seq * chunks + chunk_index) * d + c, mask=channel, other=0.0)
    initial_state = tl.load(initial + seq * d + c, mask=channel, other=0.0)
    for step in range(chunk):
        token = chunk_index * chunk + chunk - 1 - step
        offset = (seq * t + token) * d + c
        valid = channel & (token < t)
        grad = tl.load(d_states + offset, mask=valid, other=0.0) + carried
        previous = tl.where(token > 0, tl.load(states + offset - d, mask=valid & (token > 0), other=0.0), initial_state)
        carried = tl.exp(tl.load(log_decay + offset, mask=valid, other=0.0)) * grad
        tl.store(d_x + offset, grad, mask=valid)
        tl.store(d_log_decay + offset, carried * previous, mask=valid)


@triton_op("hybridlab::elementwise_scan_by_kernels", mutates_args={})
def scan(x: Tensor, log_decay: Tensor, start: Tensor) -> Tensor:
    """Return all states [b t d] of x and log_decay [b t d] and start [b d], all in float32."""
    x, log_decay = x.contiguous(), log_decay.contiguous()
    (b, t, d), chunks = x.shape, triton.cdiv(x.shape[1], CHUNK)
    starts, _ = _chunk_starts(x, log_decay, start, reverse=False)
    states = torch.empty_like(x)
    launcher(_states_kernel)[(chunks, triton.cdiv(d, CHANNELS), b)](
        x, log_decay, starts, states, t, d, chunks, chunk=CHUNK, channels=CHANNELS, num_warps=1
    )
    return states


@triton_op("hybridlab::elementwise_scan_by_kernels_backward", mutates_args={})
def _gradients(d_states: Tensor, log_decay: Tensor, start: Tensor, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    d_states, log_decay, start, states = (each.contiguous() for each in (d_states, log_decay, start, states))
    (b, t, d), chunks = d_states.shape, triton.cdiv(d_states.shape[1], CHUNK)
    starts, d_start = _chunk_starts(d_states, log_decay, torch.zeros_like(start), reverse=True)
    d_x, d_log_decay = torch.empty_like(d_states), torch.empty_like(d_states)
    launcher(_gradients_kernel)[(chunks, triton.cdiv(d, CHANNELS), b)](
        d_states, log_decay, states, start, starts, d_x, d_log_decay, t, d, chunks,
        chunk=CHUNK, channels=CHANNELS, num_warps=1,
    )  # fmt: skip
    return d_x, d_log_decay, d_start


def _chunk_starts(x: Tensor, log_decay: Tensor, initial: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """Return the state before each chunk and the state after the last."""
    (b, t, d), chunks, blocks = x.shape, triton.cdiv(x.shape[1], CHUNK), triton.cdiv(x.shape[2], CHANNELS)
    ends, total_decays, starts = (x.new_empty(b, chunks, d) for _ in range(3))
    last, initial = torch.empty_like(initial, memory_format=torch.contiguous_format), initial.contiguous()
    launcher(_ends_kernel)[(chunks, blocks, b)](
        x, log_decay, ends, total_decays, t, d, chunks,
        chunk=CHUNK, channels=CHANNELS, reverse=reverse, num_warps=1,
    )  # fmt: skip
    # Few programs of many steps each: fewer channels per program let more of them run in parallel.
    launcher(_starts_kernel)[(triton.cdiv(d, 32), b)](
        ends, total_decays, initial, starts, last, d, chunks, channels=32, reverse=reverse, num_warps=1
    )
    return starts, last


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:], output)


def _backward(ctx: Any, d_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(d_states, *ctx.saved_tensors)


scan.register_autograd(_backward, setup_context=_save)
