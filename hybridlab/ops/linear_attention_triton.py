"""Linear attention as GPU kernels: what the tokens of a chunk do to each other stays in registers.

With g the log decays summed from a chunk's start (G: to its end),

    o_i = exp(g_i) Sᵀ q_i + Σ_{j<=i} exp(g_i - g_j) (q_i·k_j) v_j,    S' = exp(G) S + Σ_j exp(G - g_j) k_j v_jᵀ.

Only the states are sequential: one kernel steps through a row's chunks with some columns of S in registers, forward from
the first and backward from the last; the others take all chunks at once. What one product gives is never transposed to
enter the next: on Hopper, Triton 3.4 to 3.7 then multiplies wrongly. So transposes are made anew, of what was loaded.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

CHUNK = 64
# Columns of the state per program of a sequential kernel: more programs side by side, all with the same loads.
PART = 16


@triton.jit
def _tokens(pointer, first, width, column):
    """Point at some columns of the vectors of a chunk's tokens."""
    return pointer + (first + tl.arange(0, 64))[:, None] * width + column[None, :]


@triton.jit
def _matrix(pointer, number, height: tl.constexpr, width, column):
    """Point at some columns of a matrix."""
    return pointer + (number * height + tl.arange(0, height))[:, None] * width + column[None, :]


@triton.jit
def _weights(left, first, decays: tl.constexpr, turned: tl.constexpr):
    """Return what is left of each token of a chunk (a column) at each that is not before it (a row), else 0.

    With rows for columns if `turned`.
    """
    i = tl.arange(0, 64)
    later, earlier = (i[None, :], i[:, None]) if turned else (i[:, None], i[None, :])
    weights = tl.where(later >= earlier, 1.0, 0.0)
    if decays:
        g = tl.load(left + first + i)
        lag = g[None, :] - g[:, None] if turned else g[:, None] - g[None, :]
        weights = tl.exp(tl.where(later >= earlier, lag, float("-inf")))
    return weights


@triton.jit
def _states_kernel(
    keys, values, left, start, states, last,
    steps, width, sharing, k: tl.constexpr, part: tl.constexpr, decays: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * part + tl.arange(0, part)
    i, inside = tl.arange(0, k), (column < width)[None, :]
    half = keys.dtype.element_ty
    state = tl.load(_matrix(start, row, k, width, column), mask=inside, other=0.0)
    for n in range(steps):
        tl.store(_matrix(states, row * steps + n, k, width, column), state.to(half), mask=inside)
        first = (row * steps + n) * 64
        key = tl.load(_tokens(keys, ((row // sharing) * steps + n) * 64, k, i))
        value = tl.load(_tokens(values, first, width, column), mask=inside, other=0.0).to(tl.float32)
        if decays:
            end = tl.load(left + first + 63)
            value *= tl.exp(end - tl.load(left + first + tl.arange(0, 64)))[:, None]
            state *= tl.exp(end)
        state = tl.dot(tl.trans(key), value.to(half), acc=state)
    tl.store(_matrix(last, row, k, width, column), state, mask=inside)


@triton.jit
def _outputs_kernel(
    queries, keys, values, left, states, o,
    steps, width, sharing, k: tl.constexpr, part: tl.constexpr, decays: tl.constexpr,
):  # fmt: skip
    n, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i, column = tl.arange(0, k), tl.program_id(2) * part + tl.arange(0, part)
    half = keys.dtype.element_ty
    inside, first, shared = (column < width)[None, :], (row * steps + n) * 64, ((row // sharing) * steps + n) * 64
    query, key = tl.load(_tokens(queries, shared, k, i)), tl.load(_tokens(keys, shared, k, i))
    found = tl.dot(query, tl.load(_matrix(states, row * steps + n, k, width, column), mask=inside, other=0.0))
    if decays:
        found *= tl.exp(tl.load(left + first + tl.arange(0, 64)))[:, None]
    scores = tl.dot(query, tl.trans(key)) * _weights(left, first, decays, False)
    value = tl.load(_tokens(values, first, width, column), mask=inside, other=0.0)
    found = tl.dot(scores.to(half), value, acc=found)
    tl.store(_tokens(o, first, width, column), found.to(half), mask=inside)


@triton.jit
def _backward_states_kernel(
    queries, left, d_o, d_last, d_states, d_start,
    steps, width, sharing, k: tl.constexpr, part: tl.constexpr, decays: tl.constexpr,
):  # fmt: skip
    """Carry the gradient of the state back, and keep what reaches it after each chunk."""
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * part + tl.arange(0, part)
    i, inside = tl.arange(0, k), (column < width)[None, :]
    half = queries.dtype.element_ty
    arriving = tl.load(_matrix(d_last, row, k, width, column), mask=inside, other=0.0)
    for turn in range(steps):
        n = steps - 1 - turn
        tl.store(_matrix(d_states, row * steps + n, k, width, column), arriving.to(half), mask=inside)
        first = (row * steps + n) * 64
        query = tl.load(_tokens(queries, ((row // sharing) * steps + n) * 64, k, i))
        d = tl.load(_tokens(d_o, first, width, column), mask=inside, other=0.0)
        if decays:
            d = (d * tl.exp(tl.load(left + first + tl.arange(0, 64)))[:, None]).to(half)
            arriving *= tl.exp(tl.load(left + first + 63))
        arriving = tl.dot(tl.trans(query), d, acc=arriving)
    tl.store(_matrix(d_start, row, k, width, column), arriving, mask=inside)


@triton.jit
def _gradients_kernel(
    queries, keys, values, left, states, d_states, d_o, d_queries, d_keys, d_values, d_left,
    steps, width, sharing, k: tl.constexpr, part: tl.constexpr, decays: tl.constexpr,
):  # fmt: skip
    n, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    c, i = tl.arange(0, 64), tl.arange(0, k)
    half = keys.dtype.element_ty
    first, shared, number = (row * steps + n) * 64, ((row // sharing) * steps + n) * 64, row * steps + n
    query, key = tl.load(_tokens(queries, shared, k, i)), tl.load(_tokens(keys, shared, k, i))
    turned = (tl.dot(key, tl.trans(query)) * _weights(left, first, decays, True)).to(half)
    of_query, of_key = tl.zeros([64, k], tl.float32), tl.zeros([64, k], tl.float32)
    of_scores, of_turned = tl.zeros([64, 64], tl.float32), tl.zeros([64, 64], tl.float32)
    of_end = 0.0
    if decays:
        g, end = tl.load(left + first + c), tl.load(left + first + 63)
        until = tl.exp(end - g)[:, None]
    for p in range(0, width, part):
        column = p + tl.arange(0, part)
        inside = (column < width)[None, :]
        d = tl.load(_tokens(d_o, first, width, column), mask=inside, other=0.0)
        value = tl.load(_tokens(values, first, width, column), mask=inside, other=0.0)
        state = tl.load(_matrix(states, number, k, width, column), mask=inside, other=0.0)
        arriving = tl.load(_matrix(d_states, number, k, width, column), mask=inside, other=0.0)
        of_scores = tl.dot(d, tl.trans(value), acc=of_scores)
        of_turned = tl.dot(value, tl.trans(d), acc=of_turned)
        of_query = tl.dot(d, tl.trans(state), acc=of_query)
        of_key = tl.dot(value, tl.trans(arriving), acc=of_key)
        if decays:
            of_end += tl.sum(tl.sum(state.to(tl.float32) * arriving.to(tl.float32), 1), 0)
        reached = tl.dot(key, arriving)
        if decays:
            reached *= until
        reached = tl.dot(turned, d, acc=reached)
        tl.store(_tokens(d_values, first, width, column), reached.to(half), mask=inside)
    if decays:
        of_query *= tl.exp(g)[:, None]
        of_key *= until
        of_end = of_end * tl.exp(end) + tl.sum(tl.sum(of_key * key, 1), 0)
    of_scores = (of_scores * _weights(left, first, decays, False)).to(half)
    of_turned = (of_turned * _weights(left, first, decays, True)).to(half)
    of_query = tl.dot(of_scores, key, acc=of_query)
    of_key = tl.dot(of_turned, query, acc=of_key)
    tl.store(_tokens(d_queries, first, k, i), of_query.to(half))
    tl.store(_tokens(d_keys, first, k, i), of_key.to(half))
    if decays:
        # A log decay weighs what queries at or after its token read, and not what keys at or after it wrote.
        of_left = tl.sum(of_query * query, 1) - tl.sum(of_key * key, 1)
        tl.store(d_left + first + c, of_left + tl.where(c == 63, of_end, 0.0))


@triton_op("hybridlab::linear_attention", mutates_args={})
def linear_attention(
    queries: Tensor, keys: Tensor, values: Tensor, left: Tensor | None, start: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return outputs [r t v], the last state [r k v] in float32, and for the gradients the states of chunks [r n k v].

    Queries and keys [r/s t k] serve s rows of values [r t v] each, all in half precision; left [r t], the log decays summed
    within chunks of 64, and start [r k v] are in float32. k is a power of two and t a multiple of 64.
    """
    (rows, t, width), k, decays = values.shape, keys.shape[-1], left is not None
    queries, keys, values, start = queries.contiguous(), keys.contiguous(), values.contiguous(), start.contiguous()
    left = start if left is None else left.contiguous()
    steps, sharing, part = t // CHUNK, rows // len(keys), min(triton.next_power_of_2(width), 128)
    states, o, last = values.new_empty(rows, steps, k, width), torch.empty_like(values), torch.empty_like(start)
    wrap_triton(_states_kernel)[(rows, triton.cdiv(width, PART))](
        keys, values, left, start, states, last,
        steps, width, sharing, k=k, part=PART, decays=decays, num_warps=4, num_stages=3,
    )  # fmt: skip
    wrap_triton(_outputs_kernel)[(steps, rows, triton.cdiv(width, part))](
        queries, keys, values, left, states, o,
        steps, width, sharing, k=k, part=part, decays=decays, num_warps=4, num_stages=1,
    )  # fmt: skip
    return o, last, states


@triton_op("hybridlab::linear_attention_backward", mutates_args={})
def _gradients(
    queries: Tensor, keys: Tensor, values: Tensor, left: Tensor | None, states: Tensor, d_o: Tensor, d_last: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return what reaches queries and keys (of each row its own), values, left and start."""
    (rows, t, width), k, decays = values.shape, keys.shape[-1], left is not None
    queries, keys, values, states = queries.contiguous(), keys.contiguous(), values.contiguous(), states.contiguous()
    d_o, d_last = d_o.contiguous(), d_last.contiguous()
    left = d_last if left is None else left.contiguous()
    steps, sharing, part = t // CHUNK, rows // len(keys), min(triton.next_power_of_2(width), 32)
    d_queries, d_keys, d_values = (values.new_empty(rows, t, x) for x in (k, k, width))
    d_states, d_start = torch.empty_like(states), torch.empty_like(d_last)
    d_left = left.new_empty((rows, t) if decays else 0)
    wrap_triton(_backward_states_kernel)[(rows, triton.cdiv(width, PART))](
        queries, left, d_o, d_last, d_states, d_start,
        steps, width, sharing, k=k, part=PART, decays=decays, num_warps=4, num_stages=3,
    )  # fmt: skip
    wrap_triton(_gradients_kernel)[(steps, rows)](
        queries, keys, values, left, states, d_states, d_o, d_queries, d_keys, d_values, d_left,
        steps, width, sharing, k=k, part=part, decays=decays, num_warps=8, num_stages=1,
    )  # fmt: skip
    return d_queries, d_keys, d_values, d_left, d_start


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    queries, keys, values, left, _ = inputs
    ctx.save_for_backward(queries, keys, values, left, output[2])


def _backward(ctx: Any, d_o: Tensor, d_last: Tensor, _d_states: Tensor) -> tuple[Tensor | None, ...]:
    queries, keys, values, left, states = ctx.saved_tensors
    d_queries, d_keys, d_values, d_left, d_start = _gradients(queries, keys, values, left, states, d_o, d_last)
    if len(keys) < len(values):
        d_queries, d_keys = (x.unflatten(0, (len(keys), -1)).sum(1) for x in (d_queries, d_keys))
    return d_queries, d_keys, d_values, None if left is None else d_left, d_start


linear_attention.register_autograd(_backward, setup_context=_save)
