"""GPU kernels for the selective scan, forward and backward: chunks from zero, a scan over their
ends, then chunks again.

A program steps through the tokens of a chunk with the states of some channels in registers. Only
the states before chunks are stored; the backward pass recomputes the others, one block of tokens at
a time. Letters as in the PyTorch form; `size` is n or the next power of two.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from hybridlab.ops.kernels.launch import launcher

CHUNK = 32  # tokens per program
BLOCK = 4  # tokens whose states the backward pass holds at once: more would not fit into registers
# Channels per program: with a state of 16 each, a thread holds 4 x 4 elements, and sums over either
# axis exchange little.
CHANNELS = 32
PART = 32  # state elements per program of one warp that steps over chunks
PER_WARP = 16  # state elements per channel that a warp holds
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _vector(pointer, seq, token, t, width, index):
    """Load elements of a token's vector, 0 out of bounds: a token beyond the end leaves the state
    unchanged."""
    valid = (index < width) & (token < t)
    return tl.load(pointer + (seq * t + token) * width + index, mask=valid, other=0.0).to(tl.float32)


@triton.jit
def _store(pointer, seq, token, t, width, index, value):
    valid = (index < width) & (token < t)
    tl.store(pointer + (seq * t + token) * width + index, value.to(pointer.dtype.element_ty), mask=valid)


@triton.jit
def _matrix(pointer, index, n, d, i, c):
    """Return pointers to the states of some channels."""
    return pointer + (index * n + i[:, None]) * d + c[None, :]


@triton.jit
def _rates(rate, n, d, i, c):
    """Return A, scaled so that decays are powers of two."""
    return tl.load(_matrix(rate, 0, n, d, i, c), mask=(i < n)[:, None] & (c < d)[None, :], other=0.0) * LOG2_E


@triton.jit
def _next(state, u, step, key, rates, seq, token, t, n, d, i, c):
    """Return the state after a token."""
    added = _vector(key, seq, token, t, n, i)[:, None] * _vector(u, seq, token, t, d, c)[None, :]
    return tl.exp2(_vector(step, seq, token, t, d, c)[None, :] * rates) * state + added


@triton.jit
def _ends_kernel(
    columns, step, rate, rows, ends, totals, t, n, d, chunks,
    size: tl.constexpr, channels: tl.constexpr, chunk: tl.constexpr, reverse: tl.constexpr,
):  # fmt: skip
    """Store the state (if `reverse`, the gradient) that a chunk reaches from zero, and its sum of
    steps."""
    chunk_index, seq = tl.program_id(0), tl.program_id(2).to(tl.int64)
    i, c = tl.arange(0, size), tl.program_id(1) * channels + tl.arange(0, channels)
    rates = _rates(rate, n, d, i, c)
    state, total = tl.zeros([size, channels], tl.float32), tl.zeros([channels], tl.float32)
    for turn in range(chunk):
        token = chunk_index * chunk + (chunk - 1 - turn if reverse else turn)
        delta = _vector(step, seq, token, t, d, c)
        added = _vector(rows, seq, token, t, n, i)[:, None] * _vector(columns, seq, token, t, d, c)[None, :]
        decay = tl.exp2(delta[None, :] * rates)
        state = decay * (state + added) if reverse else decay * state + added
        total += delta
    tl.store(_matrix(ends, seq * chunks + chunk_index, n, d, i, c), state, mask=(i < n)[:, None] & (c < d)[None, :])
    _store(totals, seq, chunk_index, chunks, d, c, total)


@triton.jit
def _starts_kernel(
    ends, totals, rate, initial, last, n, d, chunks, part: tl.constexpr, ahead: tl.constexpr, reverse: tl.constexpr,
):  # fmt: skip
    """Step over the chunks: replace what each chunk adds by the state before it.

    `ahead` chunks are loaded before the first is used, because steps are short and loads are long.
    """
    seq, e = tl.program_id(1).to(tl.int64), tl.program_id(0) * part + tl.arange(0, part)
    inside, c = e < n * d, e % d
    rates = tl.load(rate + e, mask=inside, other=0.0) * LOG2_E
    state = tl.load(initial + seq * n * d + e, mask=inside, other=0.0)
    for turn in range(0, chunks, ahead):
        added, total = (), ()
        for i in tl.static_range(ahead):
            index = seq * chunks + (chunks - 1 - turn - i if reverse else turn + i)
            valid = inside & (turn + i < chunks)
            added += (tl.load(ends + index * n * d + e, mask=valid, other=0.0),)
            total += (tl.load(totals + index * d + c, mask=valid, other=0.0),)
        for i in tl.static_range(ahead):
            index = seq * chunks + (chunks - 1 - turn - i if reverse else turn + i)
            tl.store(ends + index * n * d + e, state, mask=inside & (turn + i < chunks))
            state = tl.exp2(total[i] * rates) * state + added[i]
    tl.store(last + seq * n * d + e, state, mask=inside)


@triton.jit
def _outputs_kernel(
    u, step, rate, key, query, starts, y, t, n, d, chunks,
    size: tl.constexpr, channels: tl.constexpr, chunk: tl.constexpr,
):  # fmt: skip
    chunk_index, seq = tl.program_id(0), tl.program_id(2).to(tl.int64)
    i, c = tl.arange(0, size), tl.program_id(1) * channels + tl.arange(0, channels)
    inside, rates = (i < n)[:, None] & (c < d)[None, :], _rates(rate, n, d, i, c)
    state = tl.load(_matrix(starts, seq * chunks + chunk_index, n, d, i, c), mask=inside, other=0.0)
    for turn in range(chunk):
        token = chunk_index * chunk + turn
        state = _next(state, u, step, key, rates, seq, token, t, n, d, i, c)
        _store(y, seq, token, t, d, c, tl.sum(_vector(query, seq, token, t, n, i)[:, None] * state, 0))


@triton.jit
def _gradients_kernel(
    u, step, rate, key, query, starts, d_y, d_states, d_u, d_step, d_rate, d_key, d_query, t, n, d, chunks,
    size: tl.constexpr, channels: tl.constexpr, chunk: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Step backward through a chunk in blocks of tokens, whose states are recomputed from the
    chunk's start or middle.

    Sums over channels cover the program's own channels; the caller adds them up.
    """
    chunk_index, seq, seqs = tl.program_id(0), tl.program_id(2).to(tl.int64), tl.num_programs(2)
    i, c = tl.arange(0, size), tl.program_id(1) * channels + tl.arange(0, channels)
    inside, rates = (i < n)[:, None] & (c < d)[None, :], _rates(rate, n, d, i, c)
    slot = tl.program_id(1) * seqs + seq
    start = tl.load(_matrix(starts, seq * chunks + chunk_index, n, d, i, c), mask=inside, other=0.0)
    adjoint = tl.load(_matrix(d_states, seq * chunks + chunk_index, n, d, i, c), mask=inside, other=0.0)
    grad_rate = tl.zeros([size, channels], tl.float32)
    half = chunk_index * chunk + chunk // 2
    middle = start
    for token in range(chunk_index * chunk, half):
        middle = _next(middle, u, step, key, rates, seq, token, t, n, d, i, c)
    for turn in range(chunk // block):
        first = (chunk_index + 1) * chunk - (turn + 1) * block
        state = tl.where(first < half, start, middle)
        for token in range(tl.where(first < half, chunk_index * chunk, half), first):
            state = _next(state, u, step, key, rates, seq, token, t, n, d, i, c)
        states = (state,)
        for at in tl.static_range(block):
            states += (_next(states[at], u, step, key, rates, seq, first + at, t, n, d, i, c),)
        for back in tl.static_range(block):
            token = first + block - 1 - back
            delta, grad_y = _vector(step, seq, token, t, d, c)[None, :], _vector(d_y, seq, token, t, d, c)[None, :]
            _store(d_query, slot, token, t, n, i, tl.sum(states[block - back] * grad_y, 1))
            adjoint += _vector(query, seq, token, t, n, i)[:, None] * grad_y
            _store(d_key, slot, token, t, n, i, tl.sum(adjoint * _vector(u, seq, token, t, d, c)[None, :], 1))
            _store(d_u, seq, token, t, d, c, tl.sum(adjoint * _vector(key, seq, token, t, n, i)[:, None], 0))
            adjoint *= tl.exp2(delta * rates)
            grad_exponent = adjoint * states[block - 1 - back]
            grad_rate += grad_exponent * delta
            _store(d_step, seq, token, t, d, c, tl.sum(grad_exponent * rates, 0) / LOG2_E)
    tl.store(_matrix(d_rate, seq * chunks + chunk_index, n, d, i, c), grad_rate, mask=inside)


@triton_op("hybridlab::selective_scan_kernel", mutates_args={})
def scan(
    u: Tensor, step: Tensor, rate: Tensor, key: Tensor, query: Tensor, start: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return outputs [b t d] in the dtype of u, and, in float32, the last state [b n d] and the
    states before chunks.

    u and step [b t d], key and query [b t n] are in float32 or half precision; rate [n d] and start
    [b n d] are in float32.
    """
    u, step, rate, key, query = (each.contiguous() for each in (u, step, rate, key, query))
    starts, last = _before_chunks(u, step, rate, key, start, reverse=False)
    y, (n, d), chunks = torch.empty_like(u), rate.shape, starts.shape[1]
    launcher(_outputs_kernel)[(chunks, triton.cdiv(d, CHANNELS), len(u))](
        u, step, rate, key, query, starts, y, u.shape[1], n, d, chunks, chunk=CHUNK, **_tile(n)
    )
    return y, last, starts


@triton_op("hybridlab::selective_scan_kernel_backward", mutates_args={})
def _gradients(
    u: Tensor, step: Tensor, rate: Tensor, key: Tensor, query: Tensor, starts: Tensor, d_y: Tensor, d_last: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the scan's six inputs."""
    u, step, rate, key, query, d_y = (each.contiguous() for each in (u, step, rate, key, query, d_y))
    d_states, d_start = _before_chunks(d_y, step, rate, query, d_last, reverse=True)
    (n, d), (b, t, _), parts, chunks = rate.shape, u.shape, triton.cdiv(rate.shape[1], CHANNELS), starts.shape[1]
    d_u, d_step, d_rate = torch.empty_like(u), torch.empty_like(step), torch.empty_like(d_states)
    d_key, d_query = (starts.new_empty(parts, b, t, n) for _ in range(2))
    launcher(_gradients_kernel)[(chunks, parts, b)](
        u, step, rate, key, query, starts, d_y, d_states, d_u, d_step, d_rate, d_key, d_query, t, n, d, chunks,
        chunk=CHUNK, block=BLOCK, **_tile(n),
    )  # fmt: skip
    d_key, d_query = d_key.sum(0).to(key.dtype), d_query.sum(0).to(query.dtype)
    return d_u, d_step, d_rate.sum((0, 1)), d_key, d_query, d_start


def _before_chunks(
    columns: Tensor, step: Tensor, rate: Tensor, rows: Tensor, initial: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Return the state before each chunk and the last state; if `reverse`, the gradient of the
    state after each chunk and that of the initial state."""
    (b, t, d), n, chunks = columns.shape, len(rate), triton.cdiv(columns.shape[1], CHUNK)
    ends, totals = (initial.new_empty(b, chunks, *each, dtype=torch.float32) for each in ((n, d), (d,)))
    launcher(_ends_kernel)[(chunks, triton.cdiv(d, CHANNELS), b)](
        columns, step, rate, rows, ends, totals, t, n, d, chunks, chunk=CHUNK, reverse=reverse, **_tile(n)
    )
    last = initial.new_empty(b, n, d, dtype=torch.float32)
    launcher(_starts_kernel)[(triton.cdiv(n * d, PART), b)](
        ends, totals, rate, initial.contiguous(), last, n, d, chunks, part=PART, ahead=8, reverse=reverse, num_warps=1
    )
    return ends, last


def _tile(n: int) -> dict[str, int]:
    size = triton.next_power_of_2(n)
    return {"size": size, "channels": CHANNELS, "num_warps": max(size // PER_WARP, 1)}


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:5], output[2])
    ctx.set_materialize_grads(False)  # zeros for the states before chunks would be as large as these


def _backward(ctx: Any, d_y: Tensor | None, d_last: Tensor | None, _: None) -> tuple[Tensor, ...]:
    saved = ctx.saved_tensors
    d_y = torch.zeros_like(saved[0]) if d_y is None else d_y
    d_last = torch.zeros_like(saved[-1][:, 0]) if d_last is None else d_last
    return _gradients(*saved, d_y, d_last)


scan.register_autograd(_backward, setup_context=_save)
