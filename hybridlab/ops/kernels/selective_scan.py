"""The selective scan as GPU kernels, forward and backward: chunks from zero, a scan over their ends, then chunks again.

A program steps through the tokens of a chunk with what some channels remember in registers. The states before chunks are
all that is ever written; the gradient computes the others again, those of a block of tokens at a time.
Letters as in the PyTorch form; `size` is n or the next power of two.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from hybridlab.ops.kernels.launch import launcher

CHUNK = 32  # tokens per program
BLOCK = 4  # tokens whose states the gradient holds at once: more of them would not fit into registers
CHANNELS = 32  # per program: with 16 numbers each, Triton gives a thread 4 x 4, and sums over either exchange little
PART = 32  # numbers of the state per program of one warp that steps over chunks
PER_WARP = 16  # numbers per channel that a warp holds
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _vector(pointer, row, token, t, width, index):
    """Load some numbers of a token, 0 for what is not there: a token beyond the row leaves the state as it is."""
    there = (index < width) & (token < t)
    return tl.load(pointer + (row * t + token) * width + index, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _put(pointer, row, token, t, width, index, value):
    there = (index < width) & (token < t)
    tl.store(pointer + (row * t + token) * width + index, value.to(pointer.dtype.element_ty), mask=there)


@triton.jit
def _matrix(pointer, number, n, d, i, c):
    """Point at the numbers remembered by some channels."""
    return pointer + (number * n + i[:, None]) * d + c[None, :]


@triton.jit
def _rates(rate, n, d, i, c):
    """Return A, so scaled that decays are powers of two."""
    return tl.load(_matrix(rate, 0, n, d, i, c), mask=(i < n)[:, None] & (c < d)[None, :], other=0.0) * LOG2_E


@triton.jit
def _next(state, u, step, key, rates, row, token, t, n, d, i, c):
    """Return the state after a token."""
    added = _vector(key, row, token, t, n, i)[:, None] * _vector(u, row, token, t, d, c)[None, :]
    return tl.exp2(_vector(step, row, token, t, d, c)[None, :] * rates) * state + added


@triton.jit
def _ends_kernel(
    columns, step, rate, rows, ends, totals, t, n, d, chunks,
    size: tl.constexpr, channels: tl.constexpr, chunk: tl.constexpr, backwards: tl.constexpr,
):  # fmt: skip
    """Write what a chunk makes of a state (backwards: of a gradient) of zero, and its sum of steps."""
    number, row = tl.program_id(0), tl.program_id(2).to(tl.int64)
    i, c = tl.arange(0, size), tl.program_id(1) * channels + tl.arange(0, channels)
    rates = _rates(rate, n, d, i, c)
    state, total = tl.zeros([size, channels], tl.float32), tl.zeros([channels], tl.float32)
    for turn in range(chunk):
        token = number * chunk + (chunk - 1 - turn if backwards else turn)
        delta = _vector(step, row, token, t, d, c)
        added = _vector(rows, row, token, t, n, i)[:, None] * _vector(columns, row, token, t, d, c)[None, :]
        decay = tl.exp2(delta[None, :] * rates)
        state = decay * (state + added) if backwards else decay * state + added
        total += delta
    tl.store(_matrix(ends, row * chunks + number, n, d, i, c), state, mask=(i < n)[:, None] & (c < d)[None, :])
    _put(totals, row, number, chunks, d, c, total)


@triton.jit
def _starts_kernel(
    ends, totals, rate, first, last, n, d, chunks, part: tl.constexpr, ahead: tl.constexpr, backwards: tl.constexpr,
):  # fmt: skip
    """Step over the chunks: in place of what each adds, write what comes before it.

    Some are loaded before the first of them is used, because a step is short and a load is not.
    """
    row, e = tl.program_id(1).to(tl.int64), tl.program_id(0) * part + tl.arange(0, part)
    inside, c = e < n * d, e % d
    rates = tl.load(rate + e, mask=inside, other=0.0) * LOG2_E
    state = tl.load(first + row * n * d + e, mask=inside, other=0.0)
    for turn in range(0, chunks, ahead):
        added, total = (), ()
        for at in tl.static_range(ahead):
            number = row * chunks + (chunks - 1 - turn - at if backwards else turn + at)
            here = inside & (turn + at < chunks)
            added += (tl.load(ends + number * n * d + e, mask=here, other=0.0),)
            total += (tl.load(totals + number * d + c, mask=here, other=0.0),)
        for at in tl.static_range(ahead):
            number = row * chunks + (chunks - 1 - turn - at if backwards else turn + at)
            tl.store(ends + number * n * d + e, state, mask=inside & (turn + at < chunks))
            state = tl.exp2(total[at] * rates) * state + added[at]
    tl.store(last + row * n * d + e, state, mask=inside)


@triton.jit
def _outputs_kernel(
    u, step, rate, key, query, starts, y, t, n, d, chunks,
    size: tl.constexpr, channels: tl.constexpr, chunk: tl.constexpr,
):  # fmt: skip
    number, row = tl.program_id(0), tl.program_id(2).to(tl.int64)
    i, c = tl.arange(0, size), tl.program_id(1) * channels + tl.arange(0, channels)
    inside, rates = (i < n)[:, None] & (c < d)[None, :], _rates(rate, n, d, i, c)
    state = tl.load(_matrix(starts, row * chunks + number, n, d, i, c), mask=inside, other=0.0)
    for turn in range(chunk):
        token = number * chunk + turn
        state = _next(state, u, step, key, rates, row, token, t, n, d, i, c)
        _put(y, row, token, t, d, c, tl.sum(_vector(query, row, token, t, n, i)[:, None] * state, 0))


@triton.jit
def _gradients_kernel(
    u, step, rate, key, query, starts, into, arriving, d_u, d_step, d_rate, d_key, d_query, t, n, d, chunks,
    size: tl.constexpr, channels: tl.constexpr, chunk: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Step backwards through a chunk, a block at a time, whose states are computed again from the start or the middle.

    Sums over channels are those of the program's own; they are added up outside.
    """
    number, row, rows = tl.program_id(0), tl.program_id(2).to(tl.int64), tl.num_programs(2)
    i, c = tl.arange(0, size), tl.program_id(1) * channels + tl.arange(0, channels)
    inside, rates = (i < n)[:, None] & (c < d)[None, :], _rates(rate, n, d, i, c)
    part = tl.program_id(1) * rows + row
    start = tl.load(_matrix(starts, row * chunks + number, n, d, i, c), mask=inside, other=0.0)
    adjoint = tl.load(_matrix(arriving, row * chunks + number, n, d, i, c), mask=inside, other=0.0)
    of_rate = tl.zeros([size, channels], tl.float32)
    half = number * chunk + chunk // 2
    middle = start
    for token in range(number * chunk, half):
        middle = _next(middle, u, step, key, rates, row, token, t, n, d, i, c)
    for turn in range(chunk // block):
        first = (number + 1) * chunk - (turn + 1) * block
        state = tl.where(first < half, start, middle)
        for token in range(tl.where(first < half, number * chunk, half), first):
            state = _next(state, u, step, key, rates, row, token, t, n, d, i, c)
        states = (state,)
        for at in tl.static_range(block):
            states += (_next(states[at], u, step, key, rates, row, first + at, t, n, d, i, c),)
        for back in tl.static_range(block):
            token = first + block - 1 - back
            delta, d_y = _vector(step, row, token, t, d, c)[None, :], _vector(into, row, token, t, d, c)[None, :]
            _put(d_query, part, token, t, n, i, tl.sum(states[block - back] * d_y, 1))
            adjoint += _vector(query, row, token, t, n, i)[:, None] * d_y
            _put(d_key, part, token, t, n, i, tl.sum(adjoint * _vector(u, row, token, t, d, c)[None, :], 1))
            _put(d_u, row, token, t, d, c, tl.sum(adjoint * _vector(key, row, token, t, n, i)[:, None], 0))
            adjoint *= tl.exp2(delta * rates)
            of_exponent = adjoint * states[block - 1 - back]
            of_rate += of_exponent * delta
            _put(d_step, row, token, t, d, c, tl.sum(of_exponent * rates, 0) / LOG2_E)
    tl.store(_matrix(d_rate, row * chunks + number, n, d, i, c), of_rate, mask=inside)


@triton_op("hybridlab::selective_scan_kernel", mutates_args={})
def scan(
    u: Tensor, step: Tensor, rate: Tensor, key: Tensor, query: Tensor, start: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return outputs [b t d] in the dtype of u, and the last state [b n d] and those before chunks in float32.

    u and step [b t d], key and query [b t n] may be in half precision; rate [n d] and start [b n d] are in float32.
    """
    u, step, rate, key, query = (each.contiguous() for each in (u, step, rate, key, query))
    starts, last = _before_chunks(u, step, rate, key, start, backwards=False)
    y, (n, d), chunks = torch.empty_like(u), rate.shape, starts.shape[1]
    launcher(_outputs_kernel)[(chunks, triton.cdiv(d, CHANNELS), len(u))](
        u, step, rate, key, query, starts, y, u.shape[1], n, d, chunks, chunk=CHUNK, **_tile(n)
    )
    return y, last, starts


@triton_op("hybridlab::selective_scan_kernel_backward", mutates_args={})
def _gradients(
    u: Tensor, step: Tensor, rate: Tensor, key: Tensor, query: Tensor, starts: Tensor, into: Tensor, into_last: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the scan's six inputs."""
    u, step, rate, key, query, into = (each.contiguous() for each in (u, step, rate, key, query, into))
    arriving, d_start = _before_chunks(into, step, rate, query, into_last, backwards=True)
    (n, d), (b, t, _), parts, chunks = rate.shape, u.shape, triton.cdiv(rate.shape[1], CHANNELS), starts.shape[1]
    d_u, d_step, d_rate = torch.empty_like(u), torch.empty_like(step), torch.empty_like(arriving)
    d_key, d_query = (starts.new_empty(parts, b, t, n) for _ in range(2))
    launcher(_gradients_kernel)[(chunks, parts, b)](
        u, step, rate, key, query, starts, into, arriving, d_u, d_step, d_rate, d_key, d_query, t, n, d, chunks,
        chunk=CHUNK, block=BLOCK, **_tile(n),
    )  # fmt: skip
    d_key, d_query = d_key.sum(0).to(key.dtype), d_query.sum(0).to(query.dtype)
    return d_u, d_step, d_rate.sum((0, 1)), d_key, d_query, d_start


def _before_chunks(
    columns: Tensor, step: Tensor, rate: Tensor, rows: Tensor, first: Tensor, backwards: bool
) -> tuple[Tensor, Tensor]:
    """Return the state before each chunk (backwards: the gradient of that after it), and what is left in the end."""
    (b, t, d), n, chunks = columns.shape, len(rate), triton.cdiv(columns.shape[1], CHUNK)
    ends, totals = (first.new_empty(b, chunks, *each, dtype=torch.float32) for each in ((n, d), (d,)))
    launcher(_ends_kernel)[(chunks, triton.cdiv(d, CHANNELS), b)](
        columns, step, rate, rows, ends, totals, t, n, d, chunks, chunk=CHUNK, backwards=backwards, **_tile(n)
    )
    last = first.new_empty(b, n, d, dtype=torch.float32)
    launcher(_starts_kernel)[(triton.cdiv(n * d, PART), b)](
        ends, totals, rate, first.contiguous(), last, n, d, chunks, part=PART, ahead=8, backwards=backwards, num_warps=1
    )
    return ends, last


def _tile(n: int) -> dict[str, int]:
    size = triton.next_power_of_2(n)
    return {"size": size, "channels": CHANNELS, "num_warps": max(size // PER_WARP, 1)}


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:5], output[2])
    ctx.set_materialize_grads(False)  # zeros for the states before chunks would be as large as they


def _backward(ctx: Any, into: Tensor | None, into_last: Tensor | None, _: None) -> tuple[Tensor, ...]:
    saved = ctx.saved_tensors
    into = torch.zeros_like(saved[0]) if into is None else into
    into_last = torch.zeros_like(saved[-1][:, 0]) if into_last is None else into_last
    return _gradients(*saved, into, into_last)


scan.register_autograd(_backward, setup_context=_save)
