"""GPU kernels for linear attention and the delta rules: products between tokens of a chunk stay in
registers.

With g the log decays summed from the chunk's start (G: to its end), the written values are V = U -
W S, and

    o_i = exp(g_i) Sᵀ q_i + Σ_{j<=i} exp(g_i - g_j) (q_i·k_j) v_j,
    S' = exp(G) S + Σ_j exp(G - g_j) k_j v_jᵀ.

Only delta rules have W, and only decaying recurrences have g. Only the states are sequential: one
kernel steps through the chunks of a sequence with some columns of S in registers, forward from the
first and backward from the last; the other kernels run all chunks in parallel.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from hybridlab.ops.kernels.launch import launcher
from hybridlab.ops.kernels.padding import CHUNK

# The fewest value columns per program. On Hopper, products of fewer columns are wrong if the first
# factor is in registers: the assembler of CUDA 12.8 loses the address of the second.
MIN_COLUMNS = 64


@triton.jit
def _tokens(pointer, first, width, column):
    """Return pointers to these columns of the vectors of a chunk's tokens."""
    return pointer + (first + tl.arange(0, 64))[:, None] * width + column[None, :]


@triton.jit
def _matrix(pointer, index, height: tl.constexpr, width, column):
    """Return pointers to these columns of a matrix."""
    return pointer + (index * height + tl.arange(0, height))[:, None] * width + column[None, :]


@triton.jit
def _weights(cum_log_decay, first, has_decay: tl.constexpr, transposed: tl.constexpr):
    """Return the decay from each token of a chunk (column) to each token that is not before it
    (row), and 0 elsewhere; the transpose if `transposed`. The result of a product is never
    transposed to enter another product: on Hopper, Triton 3.4 to 3.7 then multiplies wrongly."""
    i = tl.arange(0, 64)
    later, earlier = (i[None, :], i[:, None]) if transposed else (i[:, None], i[None, :])
    weights = tl.where(later >= earlier, 1.0, 0.0)
    if has_decay:
        g = tl.load(cum_log_decay + first + i)
        lag = g[None, :] - g[:, None] if transposed else g[:, None] - g[None, :]
        weights = tl.exp(tl.where(later >= earlier, lag, float("-inf")))
    return weights


@triton.jit
def _states_kernel(
    keys, w, u, cum_log_decay, start, states, last, written,
    chunks, width, sharing,
    k: tl.constexpr, part: tl.constexpr, has_decay: tl.constexpr, has_w: tl.constexpr,
):  # fmt: skip
    seq, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * part + tl.arange(0, part)
    i, mask = tl.arange(0, k), (column < width)[None, :]
    half = keys.dtype.element_ty
    state = tl.load(_matrix(start, seq, k, width, column), mask=mask, other=0.0)
    for chunk in range(chunks):
        tl.store(_matrix(states, seq * chunks + chunk, k, width, column), state.to(half), mask=mask)
        first = (seq * chunks + chunk) * 64
        key = tl.load(_tokens(keys, ((seq // sharing) * chunks + chunk) * 64, k, i))
        value = tl.load(_tokens(u, first, width, column), mask=mask, other=0.0).to(tl.float32)
        if has_w:
            value -= tl.dot(tl.load(_tokens(w, first, k, i)), state.to(half))
            tl.store(_tokens(written, first, width, column), value.to(half), mask=mask)
        if has_decay:
            end = tl.load(cum_log_decay + first + 63)
            value *= tl.exp(end - tl.load(cum_log_decay + first + tl.arange(0, 64)))[:, None]
            state *= tl.exp(end)
        state = tl.dot(tl.trans(key), value.to(half), acc=state)
    tl.store(_matrix(last, seq, k, width, column), state, mask=mask)


@triton.jit
def _outputs_kernel(
    queries, keys, values, cum_log_decay, states, o,
    chunks, width, sharing, k: tl.constexpr, part: tl.constexpr, has_decay: tl.constexpr,
):  # fmt: skip
    chunk, seq = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i, column = tl.arange(0, k), tl.program_id(2) * part + tl.arange(0, part)
    half = keys.dtype.element_ty
    mask = (column < width)[None, :]
    first, shared = (seq * chunks + chunk) * 64, ((seq // sharing) * chunks + chunk) * 64
    query, key = tl.load(_tokens(queries, shared, k, i)), tl.load(_tokens(keys, shared, k, i))
    acc = tl.dot(query, tl.load(_matrix(states, seq * chunks + chunk, k, width, column), mask=mask, other=0.0))
    if has_decay:
        acc *= tl.exp(tl.load(cum_log_decay + first + tl.arange(0, 64)))[:, None]
    scores = tl.dot(query, tl.trans(key)) * _weights(cum_log_decay, first, has_decay, False)
    value = tl.load(_tokens(values, first, width, column), mask=mask, other=0.0)
    acc = tl.dot(scores.to(half), value, acc=acc)
    tl.store(_tokens(o, first, width, column), acc.to(half), mask=mask)


@triton.jit
def _local_gradients_kernel(
    queries, keys, cum_log_decay, d_o, d_values,
    chunks, width, sharing, k: tl.constexpr, part: tl.constexpr, has_decay: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of the written values through the outputs of their own chunk."""
    chunk, seq = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i, column = tl.arange(0, k), tl.program_id(2) * part + tl.arange(0, part)
    half = keys.dtype.element_ty
    mask = (column < width)[None, :]
    first, shared = (seq * chunks + chunk) * 64, ((seq // sharing) * chunks + chunk) * 64
    query, key = tl.load(_tokens(queries, shared, k, i)), tl.load(_tokens(keys, shared, k, i))
    scores_t = tl.dot(key, tl.trans(query)) * _weights(cum_log_decay, first, has_decay, True)
    grad_o = tl.load(_tokens(d_o, first, width, column), mask=mask, other=0.0)
    tl.store(_tokens(d_values, first, width, column), tl.dot(scores_t.to(half), grad_o).to(half), mask=mask)


@triton.jit
def _backward_states_kernel(
    queries, keys, w, cum_log_decay, d_o, d_last, d_local, d_states, d_start, d_values,
    chunks, width, sharing,
    k: tl.constexpr, part: tl.constexpr, has_decay: tl.constexpr, has_w: tl.constexpr,
):  # fmt: skip
    """Carry the gradient of the state backward; with W also compute that of the written values,
    which read the state."""
    seq, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * part + tl.arange(0, part)
    i, mask = tl.arange(0, k), (column < width)[None, :]
    half = keys.dtype.element_ty
    grad_state = tl.load(_matrix(d_last, seq, k, width, column), mask=mask, other=0.0)
    for step in range(chunks):
        chunk = chunks - 1 - step
        tl.store(_matrix(d_states, seq * chunks + chunk, k, width, column), grad_state.to(half), mask=mask)
        first, shared = (seq * chunks + chunk) * 64, ((seq // sharing) * chunks + chunk) * 64
        query = tl.load(_tokens(queries, shared, k, i))
        grad_o = tl.load(_tokens(d_o, first, width, column), mask=mask, other=0.0)
        grad_before = grad_state
        if has_decay:
            g, end = tl.load(cum_log_decay + first + tl.arange(0, 64)), tl.load(cum_log_decay + first + 63)
            grad_o = (grad_o * tl.exp(g)[:, None]).to(half)
            grad_before = grad_state * tl.exp(end)
        grad_before = tl.dot(tl.trans(query), grad_o, acc=grad_before)
        if has_w:
            grad_value = tl.dot(tl.load(_tokens(keys, shared, k, i)), grad_state.to(half))
            if has_decay:
                grad_value *= tl.exp(end - g)[:, None]
            grad_value += tl.load(_tokens(d_local, first, width, column), mask=mask, other=0.0)
            tl.store(_tokens(d_values, first, width, column), grad_value.to(half), mask=mask)
            grad_before -= tl.dot(tl.trans(tl.load(_tokens(w, first, k, i))), grad_value.to(half))
        grad_state = grad_before
    tl.store(_matrix(d_start, seq, k, width, column), grad_state, mask=mask)


@triton.jit
def _gradients_kernel(
    queries, keys, values, cum_log_decay, states, d_states, d_o, d_values, d_queries, d_keys, d_w, d_cum_log_decay,
    chunks, width, sharing,
    k: tl.constexpr, part: tl.constexpr, has_decay: tl.constexpr, has_w: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of queries, keys, decays, and W, or, without W, of the values."""
    chunk, seq = tl.program_id(0), tl.program_id(1).to(tl.int64)
    c, i = tl.arange(0, 64), tl.arange(0, k)
    half = keys.dtype.element_ty
    first, shared, index = (seq * chunks + chunk) * 64, ((seq // sharing) * chunks + chunk) * 64, seq * chunks + chunk
    query, key = tl.load(_tokens(queries, shared, k, i)), tl.load(_tokens(keys, shared, k, i))
    scores_t = (tl.dot(key, tl.trans(query)) * _weights(cum_log_decay, first, has_decay, True)).to(half)
    grad_query, grad_key = tl.zeros([64, k], tl.float32), tl.zeros([64, k], tl.float32)
    grad_w, grad_scores = tl.zeros([64, k], tl.float32), tl.zeros([64, 64], tl.float32)
    grad_scores_t = tl.zeros([64, 64], tl.float32)
    grad_end = 0.0
    if has_decay:
        g, end = tl.load(cum_log_decay + first + c), tl.load(cum_log_decay + first + 63)
        to_end = tl.exp(end - g)[:, None]
    for p in range(0, width, part):
        column = p + tl.arange(0, part)
        mask = (column < width)[None, :]
        grad_o = tl.load(_tokens(d_o, first, width, column), mask=mask, other=0.0)
        value = tl.load(_tokens(values, first, width, column), mask=mask, other=0.0)
        state = tl.load(_matrix(states, index, k, width, column), mask=mask, other=0.0)
        grad_state = tl.load(_matrix(d_states, index, k, width, column), mask=mask, other=0.0)
        grad_scores = tl.dot(grad_o, tl.trans(value), acc=grad_scores)
        grad_scores_t = tl.dot(value, tl.trans(grad_o), acc=grad_scores_t)
        grad_query = tl.dot(grad_o, tl.trans(state), acc=grad_query)
        grad_key = tl.dot(value, tl.trans(grad_state), acc=grad_key)
        if has_decay:
            grad_end += tl.sum(tl.sum(state.to(tl.float32) * grad_state.to(tl.float32), 1), 0)
        if has_w:
            grad_value = tl.load(_tokens(d_values, first, width, column), mask=mask, other=0.0)
            grad_w = tl.dot(grad_value, tl.trans(state), acc=grad_w)
        else:
            grad_value = tl.dot(key, grad_state)
            if has_decay:
                grad_value *= to_end
            grad_value = tl.dot(scores_t, grad_o, acc=grad_value)
            tl.store(_tokens(d_values, first, width, column), grad_value.to(half), mask=mask)
    if has_decay:
        grad_query *= tl.exp(g)[:, None]
        grad_key *= to_end
        grad_end = grad_end * tl.exp(end) + tl.sum(tl.sum(grad_key * key, 1), 0)
    grad_scores = (grad_scores * _weights(cum_log_decay, first, has_decay, False)).to(half)
    grad_scores_t = (grad_scores_t * _weights(cum_log_decay, first, has_decay, True)).to(half)
    grad_query = tl.dot(grad_scores, key, acc=grad_query)
    grad_key = tl.dot(grad_scores_t, query, acc=grad_key)
    tl.store(_tokens(d_queries, first, k, i), grad_query.to(half))
    tl.store(_tokens(d_keys, first, k, i), grad_key.to(half))
    if has_w:
        tl.store(_tokens(d_w, first, k, i), (-grad_w).to(half))
    if has_decay:
        # A log decay scales what queries at or after its token read, but not what keys at or after
        # it wrote.
        grad_decay = tl.sum(grad_query * query, 1) - tl.sum(grad_key * key, 1)
        tl.store(d_cum_log_decay + first + c, grad_decay + tl.where(c == 63, grad_end, 0.0))


@triton_op("hybridlab::chunk_recurrence", mutates_args={})
def chunk_recurrence(
    queries: Tensor, keys: Tensor, u: Tensor, w: Tensor | None, cum_log_decay: Tensor | None, start: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return outputs [r t v], the last state [r k v] in float32, and, for the backward pass, states
    [r n k v] and V [r t v].

    s of the r sequences share queries and keys [r/s t k]; u [r t v] and w [r t k] are one per
    sequence. Without w, V is u and an empty tensor is returned for it. All these are in half
    precision; cum_log_decay [r t], the log decays summed within chunks of 64, and start [r k v] are
    in float32. k is a power of two and t a multiple of 64.
    """
    (seqs, t, width), k, has_decay, has_w = u.shape, keys.shape[-1], cum_log_decay is not None, w is not None
    queries, keys, u, start = queries.contiguous(), keys.contiguous(), u.contiguous(), start.contiguous()
    cum_log_decay = start if cum_log_decay is None else cum_log_decay.contiguous()
    chunks, sharing = t // CHUNK, seqs // len(keys)
    states, o, last = u.new_empty(seqs, chunks, k, width), torch.empty_like(u), torch.empty_like(start)
    written = torch.empty_like(u) if has_w else u.new_empty(0)
    launcher(_states_kernel)[(seqs, triton.cdiv(width, MIN_COLUMNS))](
        keys, keys if w is None else w.contiguous(), u, cum_log_decay, start, states, last, written,
        chunks, width, sharing, k=k, part=MIN_COLUMNS, has_decay=has_decay, has_w=has_w,
        num_warps=4, num_stages=stages(k),
    )  # fmt: skip
    part = MIN_COLUMNS if width <= MIN_COLUMNS else 128
    launcher(_outputs_kernel)[(chunks, seqs, triton.cdiv(width, part))](
        queries, keys, written if has_w else u, cum_log_decay, states, o,
        chunks, width, sharing, k=k, part=part, has_decay=has_decay, num_warps=4, num_stages=1,
    )  # fmt: skip
    return o, last, states, written


@triton_op("hybridlab::chunk_recurrence_backward", mutates_args={})
def _gradients(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    w: Tensor | None,
    cum_log_decay: Tensor | None,
    states: Tensor,
    d_o: Tensor,
    d_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of queries and keys (one per sequence, not summed), u, w, cum_log_decay
    and start."""
    (seqs, t, width), k, has_decay, has_w = values.shape, keys.shape[-1], cum_log_decay is not None, w is not None
    queries, keys, values = queries.contiguous(), keys.contiguous(), values.contiguous()
    states, d_o, d_last = states.contiguous(), d_o.contiguous(), d_last.contiguous()
    cum_log_decay, w = (
        d_last if cum_log_decay is None else cum_log_decay.contiguous(),
        keys if w is None else w.contiguous(),
    )
    chunks, sharing = t // CHUNK, seqs // len(keys)
    d_queries, d_keys, d_values = (values.new_empty(seqs, t, x) for x in (k, k, width))
    d_states, d_start = torch.empty_like(states), torch.empty_like(d_last)
    d_w = values.new_empty((seqs, t, k) if has_w else 0)
    d_cum_log_decay = cum_log_decay.new_empty((seqs, t) if has_decay else 0)
    d_local = torch.empty_like(values) if has_w else d_values
    if has_w:
        launcher(_local_gradients_kernel)[(chunks, seqs, triton.cdiv(width, MIN_COLUMNS))](
            queries, keys, cum_log_decay, d_o, d_local,
            chunks, width, sharing, k=k, part=MIN_COLUMNS, has_decay=has_decay, num_warps=4, num_stages=1,
        )  # fmt: skip
    launcher(_backward_states_kernel)[(seqs, triton.cdiv(width, MIN_COLUMNS))](
        queries, keys, w, cum_log_decay, d_o, d_last, d_local, d_states, d_start, d_values,
        chunks, width, sharing, k=k, part=MIN_COLUMNS, has_decay=has_decay, has_w=has_w,
        num_warps=4, num_stages=stages(k),
    )  # fmt: skip
    launcher(_gradients_kernel)[(chunks, seqs)](
        queries, keys, values, cum_log_decay, states, d_states, d_o, d_values, d_queries, d_keys, d_w, d_cum_log_decay,
        chunks, width, sharing, k=k, part=MIN_COLUMNS, has_decay=has_decay, has_w=has_w,
        num_warps=8 if k > 64 else 4, num_stages=1,
    )  # fmt: skip
    return d_queries, d_keys, d_values, d_w, d_cum_log_decay, d_start


def stages(k: int) -> int:
    """Return how many chunks a sequential kernel loads ahead: as many as fit into shared memory."""
    return 3 if k < 128 else 2


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    queries, keys, u, w, cum_log_decay, _ = inputs
    _, _, states, written = output
    ctx.save_for_backward(queries, keys, u if w is None else written, w, cum_log_decay, states)
    ctx.set_materialize_grads(False)  # zeros for states and written values would be as large as these


def _backward(ctx: Any, d_o: Tensor | None, d_last: Tensor | None, *_: None) -> tuple[Any, ...]:
    queries, keys, values, w, cum_log_decay, states = ctx.saved_tensors
    d_o = torch.zeros_like(values) if d_o is None else d_o
    d_last = torch.zeros_like(states[:, 0], dtype=torch.float32) if d_last is None else d_last
    d_queries, d_keys, d_u, d_w, d_cum_log_decay, d_start = _gradients(
        queries, keys, values, w, cum_log_decay, states, d_o, d_last
    )
    if len(keys) < len(values):
        d_queries, d_keys = (x.unflatten(0, (len(keys), -1)).sum(1) for x in (d_queries, d_keys))
    return (
        d_queries,
        d_keys,
        d_u,
        None if w is None else d_w,
        None if cum_log_decay is None else d_cum_log_decay,
        d_start,
    )


chunk_recurrence.register_autograd(_backward, setup_context=_save)
