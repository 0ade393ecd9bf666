"""Linear attention and the delta rules as GPU kernels: what tokens of one chunk do to each other stays in registers.

With g the log decays summed from the chunk's start (G: to its end), the written values are V = U - W S, and

    o_i = exp(g_i) Sᵀ q_i + Σ_{j<=i} exp(g_i - g_j) (q_i·k_j) v_j,    S' = exp(G) S + Σ_j exp(G - g_j) k_j v_jᵀ.

W is 0 but for delta rules, g but with decay. Only the states are sequential: one kernel steps through a row's chunks with
some columns of S in registers, forward from the first and backward from the last; the others take all chunks at once.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from hybridlab.ops.kernels.launch import launcher
from hybridlab.ops.kernels.padding import CHUNK

# The fewest columns of values per program. On Hopper, products of fewer are wrong where the first factor lies in registers:
# the assembler of CUDA 12.8 loses the address of the second.
PART = 64


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
    """Return what is left of each token of a chunk (a column) at each that is not before it (a row), else 0; or, `turned`,
    with rows for columns. What a product gives is never transposed to enter another one: on Hopper, Triton 3.4 to 3.7 then
    multiplies wrongly."""
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
    keys, w, u, left, start, states, last, written,
    steps, width, sharing,
    k: tl.constexpr, part: tl.constexpr, decays: tl.constexpr, forgets: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * part + tl.arange(0, part)
    i, inside = tl.arange(0, k), (column < width)[None, :]
    half = keys.dtype.element_ty
    state = tl.load(_matrix(start, row, k, width, column), mask=inside, other=0.0)
    for n in range(steps):
        tl.store(_matrix(states, row * steps + n, k, width, column), state.to(half), mask=inside)
        first = (row * steps + n) * 64
        key = tl.load(_tokens(keys, ((row // sharing) * steps + n) * 64, k, i))
        value = tl.load(_tokens(u, first, width, column), mask=inside, other=0.0).to(tl.float32)
        if forgets:
            value -= tl.dot(tl.load(_tokens(w, first, k, i)), state.to(half))
            tl.store(_tokens(written, first, width, column), value.to(half), mask=inside)
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
def _within_kernel(
    queries, keys, left, d_o, d_values,
    steps, width, sharing, k: tl.constexpr, part: tl.constexpr, decays: tl.constexpr,
):  # fmt: skip
    """What reaches the written values from the outputs of their own chunk."""
    n, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i, column = tl.arange(0, k), tl.program_id(2) * part + tl.arange(0, part)
    half = keys.dtype.element_ty
    inside, first, shared = (column < width)[None, :], (row * steps + n) * 64, ((row // sharing) * steps + n) * 64
    query, key = tl.load(_tokens(queries, shared, k, i)), tl.load(_tokens(keys, shared, k, i))
    turned = tl.dot(key, tl.trans(query)) * _weights(left, first, decays, True)
    d = tl.load(_tokens(d_o, first, width, column), mask=inside, other=0.0)
    tl.store(_tokens(d_values, first, width, column), tl.dot(turned.to(half), d).to(half), mask=inside)


@triton.jit
def _backward_states_kernel(
    queries, keys, w, left, d_o, d_last, within, d_states, d_start, d_values,
    steps, width, sharing,
    k: tl.constexpr, part: tl.constexpr, decays: tl.constexpr, forgets: tl.constexpr,
):  # fmt: skip
    """Carry the gradient of the state back; with W also what reaches the written values, which read the state."""
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * part + tl.arange(0, part)
    i, inside = tl.arange(0, k), (column < width)[None, :]
    half = keys.dtype.element_ty
    arriving = tl.load(_matrix(d_last, row, k, width, column), mask=inside, other=0.0)
    for turn in range(steps):
        n = steps - 1 - turn
        tl.store(_matrix(d_states, row * steps + n, k, width, column), arriving.to(half), mask=inside)
        first, shared = (row * steps + n) * 64, ((row // sharing) * steps + n) * 64
        query = tl.load(_tokens(queries, shared, k, i))
        d = tl.load(_tokens(d_o, first, width, column), mask=inside, other=0.0)
        before = arriving
        if decays:
            g, end = tl.load(left + first + tl.arange(0, 64)), tl.load(left + first + 63)
            d = (d * tl.exp(g)[:, None]).to(half)
            before = arriving * tl.exp(end)
        before = tl.dot(tl.trans(query), d, acc=before)
        if forgets:
            reached = tl.dot(tl.load(_tokens(keys, shared, k, i)), arriving.to(half))
            if decays:
                reached *= tl.exp(end - g)[:, None]
            reached += tl.load(_tokens(within, first, width, column), mask=inside, other=0.0)
            tl.store(_tokens(d_values, first, width, column), reached.to(half), mask=inside)
            before -= tl.dot(tl.trans(tl.load(_tokens(w, first, k, i))), reached.to(half))
        arriving = before
    tl.store(_matrix(d_start, row, k, width, column), arriving, mask=inside)


@triton.jit
def _gradients_kernel(
    queries, keys, values, left, states, d_states, d_o, d_values, d_queries, d_keys, d_w, d_left,
    steps, width, sharing,
    k: tl.constexpr, part: tl.constexpr, decays: tl.constexpr, forgets: tl.constexpr,
):  # fmt: skip
    """What reaches queries, keys, decays, and W, or without W the values."""
    n, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    c, i = tl.arange(0, 64), tl.arange(0, k)
    half = keys.dtype.element_ty
    first, shared, number = (row * steps + n) * 64, ((row // sharing) * steps + n) * 64, row * steps + n
    query, key = tl.load(_tokens(queries, shared, k, i)), tl.load(_tokens(keys, shared, k, i))
    turned = (tl.dot(key, tl.trans(query)) * _weights(left, first, decays, True)).to(half)
    of_query, of_key = tl.zeros([64, k], tl.float32), tl.zeros([64, k], tl.float32)
    of_w, of_scores = tl.zeros([64, k], tl.float32), tl.zeros([64, 64], tl.float32)
    of_turned = tl.zeros([64, 64], tl.float32)
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
        if forgets:
            reached = tl.load(_tokens(d_values, first, width, column), mask=inside, other=0.0)
            of_w = tl.dot(reached, tl.trans(state), acc=of_w)
        else:
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
    if forgets:
        tl.store(_tokens(d_w, first, k, i), (-of_w).to(half))
    if decays:
        # A log decay weighs what queries at or after its token read, and not what keys at or after it wrote.
        of_left = tl.sum(of_query * query, 1) - tl.sum(of_key * key, 1)
        tl.store(d_left + first + c, of_left + tl.where(c == 63, of_end, 0.0))


@triton_op("hybridlab::chunk_recurrence", mutates_args={})
def chunk_recurrence(
    queries: Tensor, keys: Tensor, u: Tensor, w: Tensor | None, left: Tensor | None, start: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return outputs [r t v], the last state [r k v] in float32, and for the gradients states [r n k v] and V [r t v].

    Queries and keys [r/s t k] serve s rows each; u [r t v], w [r t k] (V is u without it, and nothing is returned for it), all
    in half precision; left [r t], the log decays summed within chunks of 64, and start [r k v] in float32. k is a power of
    two and t a multiple of 64.
    """
    (rows, t, width), k, decays, forgets = u.shape, keys.shape[-1], left is not None, w is not None
    queries, keys, u, start = queries.contiguous(), keys.contiguous(), u.contiguous(), start.contiguous()
    left = start if left is None else left.contiguous()
    steps, sharing = t // CHUNK, rows // len(keys)
    states, o, last = u.new_empty(rows, steps, k, width), torch.empty_like(u), torch.empty_like(start)
    written = torch.empty_like(u) if forgets else u.new_empty(0)
    launcher(_states_kernel)[(rows, triton.cdiv(width, PART))](
        keys, keys if w is None else w.contiguous(), u, left, start, states, last, written,
        steps, width, sharing, k=k, part=PART, decays=decays, forgets=forgets, num_warps=4, num_stages=stages(k),
    )  # fmt: skip
    part = PART if width <= PART else 128
    launcher(_outputs_kernel)[(steps, rows, triton.cdiv(width, part))](
        queries, keys, written if forgets else u, left, states, o,
        steps, width, sharing, k=k, part=part, decays=decays, num_warps=4, num_stages=1,
    )  # fmt: skip
    return o, last, states, written


@triton_op("hybridlab::chunk_recurrence_backward", mutates_args={})
def _gradients(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    w: Tensor | None,
    left: Tensor | None,
    states: Tensor,
    d_o: Tensor,
    d_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return what reaches queries and keys (for each row its own), u, w, left and start."""
    (rows, t, width), k, decays, forgets = values.shape, keys.shape[-1], left is not None, w is not None
    queries, keys, values = queries.contiguous(), keys.contiguous(), values.contiguous()
    states, d_o, d_last = states.contiguous(), d_o.contiguous(), d_last.contiguous()
    left, w = d_last if left is None else left.contiguous(), keys if w is None else w.contiguous()
    steps, sharing = t // CHUNK, rows // len(keys)
    d_queries, d_keys, d_values = (values.new_empty(rows, t, x) for x in (k, k, width))
    d_states, d_start = torch.empty_like(states), torch.empty_like(d_last)
    d_w = values.new_empty((rows, t, k) if forgets else 0)
    d_left = left.new_empty((rows, t) if decays else 0)
    within = torch.empty_like(values) if forgets else d_values
    if forgets:
        launcher(_within_kernel)[(steps, rows, triton.cdiv(width, PART))](
            queries, keys, left, d_o, within,
            steps, width, sharing, k=k, part=PART, decays=decays, num_warps=4, num_stages=1,
        )  # fmt: skip
    launcher(_backward_states_kernel)[(rows, triton.cdiv(width, PART))](
        queries, keys, w, left, d_o, d_last, within, d_states, d_start, d_values,
        steps, width, sharing, k=k, part=PART, decays=decays, forgets=forgets, num_warps=4, num_stages=stages(k),
    )  # fmt: skip
    launcher(_gradients_kernel)[(steps, rows)](
        queries, keys, values, left, states, d_states, d_o, d_values, d_queries, d_keys, d_w, d_left,
        steps, width, sharing, k=k, part=PART, decays=decays, forgets=forgets,
        num_warps=8 if k > 64 else 4, num_stages=1,
    )  # fmt: skip
    return d_queries, d_keys, d_values, d_w, d_left, d_start


def stages(k: int) -> int:
    """Return how many chunks a sequential kernel has on the way: as many as fit into shared memory."""
    return 3 if k < 128 else 2


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    queries, keys, u, w, left, _ = inputs
    _, _, states, written = output
    ctx.save_for_backward(queries, keys, u if w is None else written, w, left, states)
    ctx.set_materialize_grads(False)  # zeros for states and written values would be as large as they


def _backward(ctx: Any, d_o: Tensor | None, d_last: Tensor | None, *_: None) -> tuple[Any, ...]:
    queries, keys, values, w, left, states = ctx.saved_tensors
    d_o = torch.zeros_like(values) if d_o is None else d_o
    d_last = torch.zeros_like(states[:, 0], dtype=torch.float32) if d_last is None else d_last
    d_queries, d_keys, d_u, d_w, d_left, d_start = _gradients(queries, keys, values, w, left, states, d_o, d_last)
    if len(keys) < len(values):
        d_queries, d_keys = (x.unflatten(0, (len(keys), -1)).sum(1) for x in (d_queries, d_keys))
    return d_queries, d_keys, d_u, None if w is None else d_w, None if left is None else d_left, d_start


chunk_recurrence.register_autograd(_backward, setup_context=_save)
