"""A recurrence with a decay per channel as GPU kernels, in chunks of 64 tokens: GLA, Kimi Delta Attention, RWKV-7.

    S_t = Diag(exp(g_t)) S_{t-1} + b_t z_tᵀ + k_t v_tᵀ,    o_t = S_tᵀ q_t,    z_t = S_{t-1}ᵀ a_t.

`low_rank`: there are a and b. `adds`: there are k; without them z_t is read and v_t added to it, so that b writes both (the
delta rule), and a reads the state when it has decayed. Within a chunk that starts from S,

    Z = T (Y + A S),    T = (I - [a, b])⁻¹,    Y = [a, k] V or V,    O = Q S + [q, b] Z + [q, k] V,

with [x, y] the products of later tokens' x with earlier ones' y (of q with its own token's too) as decayed between them, A and
Q as decayed since the chunk's start. What arrives at Y is Tᵀ dZ, so [a, b] gets (Tᵀ dZ) Zᵀ: the inverse needs no gradient.
Only the states are sequential: one kernel steps through a row's chunks with 64 columns of S in registers, forward from the
first and backward from the last; the others take all chunks at once.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from hybridlab.ops.kernels.channel_decay import decay_seen, tile
from hybridlab.ops.kernels.channel_products import products_kernel, vectors_gradients_kernel
from hybridlab.ops.kernels.chunk_recurrence import stages
from hybridlab.ops.kernels.launch import launcher
from hybridlab.ops.kernels.padding import CHUNK
from hybridlab.ops.kernels.triangular_inverse import inverse


@triton.jit
def _turned(pointer, number):
    """Point at the transpose of a chunk's matrix of pairs of tokens."""
    i, j = tl.arange(0, 64), tl.arange(0, 64)
    return pointer + number * 64 * 64 + j[None, :] * 64 + i[:, None]


@triton.jit
def _solutions_kernel(
    readers, values, left, reader_writer, reader_key, inverses, w, u,
    k: tl.constexpr, v: tl.constexpr, adds: tl.constexpr,
):  # fmt: skip
    """Solve for what a chunk's tokens read: of the state, and of each other."""
    half = values.dtype.element_ty
    n, i = tl.program_id(0).to(tl.int64), tl.arange(0, 64)
    t = inverse(-tl.load(tile(reader_writer, n, 64, 64, 0))).to(half)
    tl.store(tile(inverses, n, 64, 64, 0), t)
    for part in range(k // 64):
        reader = tl.load(tile(readers, n, 64, k, part)) * tl.exp(decay_seen(left, n, i, k, part, adds))
        tl.store(tile(w, n, 64, k, part), tl.dot(t, reader.to(half)).to(half))
    for part in range(v // 64):
        value = tl.load(tile(values, n, 64, v, part))
        if adds:
            value = tl.dot(tl.load(tile(reader_key, n, 64, 64, 0)), value).to(half)
        tl.store(tile(u, n, 64, v, part), tl.dot(t, value).to(half))


@triton.jit
def _states_kernel(
    written_end, key_end, values, w, u, left, start, states, last, written,
    steps, width, k: tl.constexpr, low_rank: tl.constexpr, adds: tl.constexpr,
):  # fmt: skip
    half = values.dtype.element_ty
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    state = tl.load(tile(start, row, k, width, part))
    for step in range(steps):
        n = row * steps + step
        tl.store(tile(states, n, k, width, part), state.to(half))
        kept = tl.exp(tl.load(left + (n * 64 + 63) * k + tl.arange(0, k)))[:, None] * state
        if low_rank:
            z = tl.load(tile(u, n, 64, width, part)).to(tl.float32)
            z = tl.dot(tl.load(_wide(w, n, k)), state.to(half), acc=z).to(half)
            tl.store(tile(written, n, 64, width, part), z)
            kept = tl.dot(tl.trans(tl.load(_wide(written_end, n, k))), z, acc=kept)
        if adds:
            kept = tl.dot(tl.trans(tl.load(_wide(key_end, n, k))), tl.load(tile(values, n, 64, width, part)), acc=kept)
        state = kept
    tl.store(tile(last, row, k, width, part), state)


@triton.jit
def _wide(pointer, number, width: tl.constexpr):
    """Point at the vectors of a chunk's tokens, whole."""
    return pointer + (number * 64 + tl.arange(0, 64))[:, None] * width + tl.arange(0, width)[None, :]


@triton.jit
def _outputs_kernel(
    faded, query_writer, query_key, values, written, states, o,
    width, k: tl.constexpr, low_rank: tl.constexpr, adds: tl.constexpr,
):  # fmt: skip
    n, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    found = tl.dot(tl.load(_wide(faded, n, k)), tl.load(tile(states, n, k, width, part)))
    if low_rank:
        z = tl.load(tile(written, n, 64, width, part))
        found = tl.dot(tl.load(tile(query_writer, n, 64, 64, 0)), z, acc=found)
    if adds:
        value = tl.load(tile(values, n, 64, width, part))
        found = tl.dot(tl.load(tile(query_key, n, 64, 64, 0)), value, acc=found)
    tl.store(tile(o, n, 64, width, part), found.to(o.dtype.element_ty))


@triton.jit
def _within_kernel(query_writer, d_o, within, width):
    """What reaches Z from the outputs of its own chunk."""
    n, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    found = tl.dot(tl.load(_turned(query_writer, n)), tl.load(tile(d_o, n, 64, width, part)))
    tl.store(tile(within, n, 64, width, part), found.to(within.dtype.element_ty))


@triton.jit
def _backward_states_kernel(
    faded, written_end, w, left, d_o, d_last, within, d_states, d_start, d_written,
    steps, width, k: tl.constexpr, low_rank: tl.constexpr,
):  # fmt: skip
    half = d_o.dtype.element_ty
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    arriving = tl.load(tile(d_last, row, k, width, part))
    for turn in range(steps):
        n = row * steps + steps - 1 - turn
        tl.store(tile(d_states, n, k, width, part), arriving.to(half))
        before = tl.exp(tl.load(left + (n * 64 + 63) * k + tl.arange(0, k)))[:, None] * arriving
        before = tl.dot(tl.trans(tl.load(_wide(faded, n, k))), tl.load(tile(d_o, n, 64, width, part)), acc=before)
        if low_rank:
            dz = tl.load(tile(within, n, 64, width, part)).to(tl.float32)
            dz = tl.dot(tl.load(_wide(written_end, n, k)), arriving.to(half), acc=dz).to(half)
            tl.store(tile(d_written, n, 64, width, part), dz)
            before = tl.dot(tl.trans(tl.load(_wide(w, n, k))), dz, acc=before)
        arriving = before
    tl.store(tile(d_start, row, k, width, part), arriving)


@triton.jit
def _pairs_gradients_kernel(
    values, written, query_key, reader_key, inverses, key_end, d_o, d_written, d_states,
    d_y, d_values, d_query_writer, d_query_key, d_reader_writer, d_reader_key,
    width, k: tl.constexpr, low_rank: tl.constexpr, adds: tl.constexpr,
):  # fmt: skip
    """What reaches values, and the products of each pair of tokens."""
    half = values.dtype.element_ty
    n = tl.program_id(0).to(tl.int64)
    qb, ab = tl.zeros([64, 64], tl.float32), tl.zeros([64, 64], tl.float32)
    qk, ak = tl.zeros([64, 64], tl.float32), tl.zeros([64, 64], tl.float32)
    for part in range(width // 64):
        d, value = tl.load(tile(d_o, n, 64, width, part)), tl.load(tile(values, n, 64, width, part))
        if low_rank:
            dy = tl.dot(tl.load(_turned(inverses, n)), tl.load(tile(d_written, n, 64, width, part))).to(half)
            tl.store(tile(d_y, n, 64, width, part), dy)
            z = tl.trans(tl.load(tile(written, n, 64, width, part)))
            qb, ab = tl.dot(d, z, acc=qb), tl.dot(dy, z, acc=ab)
        if adds:
            d_value = tl.dot(tl.load(_turned(query_key, n)), d)
            d_value = tl.dot(tl.load(_wide(key_end, n, k)), tl.load(tile(d_states, n, k, width, part)), acc=d_value)
            qk = tl.dot(d, tl.trans(value), acc=qk)
            if low_rank:
                d_value = tl.dot(tl.load(_turned(reader_key, n)), dy, acc=d_value)
                ak = tl.dot(dy, tl.trans(value), acc=ak)
            tl.store(tile(d_values, n, 64, width, part), d_value.to(half))
    if low_rank:
        tl.store(tile(d_query_writer, n, 64, 64, 0), qb.to(half))
        tl.store(tile(d_reader_writer, n, 64, 64, 0), ab.to(half))
    if adds:
        tl.store(tile(d_query_key, n, 64, 64, 0), qk.to(half))
        if low_rank:
            tl.store(tile(d_reader_key, n, 64, 64, 0), ak.to(half))


@triton_op("hybridlab::channel_recurrence", mutates_args={})
def channel_recurrence(
    queries: Tensor,
    readers: Tensor | None,
    writers: Tensor | None,
    keys: Tensor | None,
    values: Tensor,
    log_decay: Tensor,
    start: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the outputs [r t v] of r rows and their last states [r k v]; then what the gradients are made of.

    Queries, readers, writers and keys [r t k] in any precision, values [r t v] in half precision, log_decay [r t k] and
    start [r k v] in float32; t, k and v are multiples of 64. There are readers where there are writers.
    """
    queries, values, start = queries.contiguous(), values.contiguous(), start.contiguous()
    (rows, t, v), k = values.shape, queries.shape[-1]
    steps, low_rank, adds = t // CHUNK, writers is not None, keys is not None
    left = log_decay.unflatten(1, (steps, CHUNK)).cumsum(2).view(rows, t, k)
    # What is not there is not read either.
    readers, writers = (queries if x is None else x.contiguous() for x in (readers, writers))
    keys = queries if keys is None else keys.contiguous()

    query_writer, inverses, w, u, written_end = (_buffer(values, low_rank, x) for x in (CHUNK, CHUNK, k, v, k))
    query_key, key_end, reader_key = (
        _buffer(values, adds, CHUNK),
        _buffer(values, adds, k),
        _buffer(values, adds and low_rank, CHUNK),
    )
    faded, states, written, o = (
        _buffer(values, True, k), values.new_empty(rows, steps, k, v), _buffer(values, low_rank, v), torch.empty_like(values),
    )  # fmt: skip
    last = torch.empty_like(start)
    reader_writer = left.new_empty((rows, t, CHUNK) if low_rank else 0)
    form = {"k": k, "low_rank": low_rank, "adds": adds}
    launcher(products_kernel)[(rows * steps,)](
        queries, readers, writers, keys, left,
        query_writer, query_key, reader_writer, reader_key, faded, written_end, key_end,
        **form, num_warps=2, num_stages=1,
    )  # fmt: skip
    if low_rank:
        launcher(_solutions_kernel)[(rows * steps,)](
            readers, values, left, reader_writer, reader_key, inverses, w, u,
            k=k, v=v, adds=adds, num_warps=4, num_stages=1,
        )  # fmt: skip
    launcher(_states_kernel)[(rows, v // 64)](
        written_end, key_end, values, w, u, left, start, states, last, written,
        steps, v, **form, num_warps=4, num_stages=stages(k),
    )  # fmt: skip
    launcher(_outputs_kernel)[(rows * steps, v // 64)](
        faded, query_writer, query_key, values, written, states, o, v, **form, num_warps=4, num_stages=1
    )
    return (
        o, last, left, query_writer, query_key, reader_key, inverses, w, faded, written_end, key_end, states, written,
    )  # fmt: skip


@triton_op("hybridlab::channel_recurrence_backward", mutates_args={})
def _gradients(
    queries: Tensor, readers: Tensor | None, writers: Tensor | None, keys: Tensor | None, values: Tensor, left: Tensor,
    query_writer: Tensor, query_key: Tensor, reader_key: Tensor, inverses: Tensor, w: Tensor, faded: Tensor,
    written_end: Tensor, key_end: Tensor, states: Tensor, written: Tensor, d_o: Tensor, d_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return what reaches queries, readers, writers, keys, values, log_decay and start."""
    queries, values, d_o, d_last = queries.contiguous(), values.contiguous(), d_o.contiguous(), d_last.contiguous()
    (rows, t, v), k = values.shape, queries.shape[-1]
    steps, low_rank, adds = t // CHUNK, writers is not None, keys is not None
    d_queries, d_start, d_states = torch.empty_like(queries), torch.empty_like(d_last), torch.empty_like(states)
    d_readers, d_writers, d_keys = (
        queries.new_empty(0) if x is None else torch.empty_like(x.contiguous()) for x in (readers, writers, keys)
    )
    readers, writers = (queries if x is None else x.contiguous() for x in (readers, writers))
    keys = queries if keys is None else keys.contiguous()

    within, d_written, d_y = (_buffer(values, low_rank, v) for _ in range(3))
    d_values = _buffer(values, adds, v)
    d_query_writer, d_reader_writer = _buffer(values, low_rank, CHUNK), _buffer(values, low_rank, CHUNK)
    d_query_key, d_reader_key = _buffer(values, adds, CHUNK), _buffer(values, adds and low_rank, CHUNK)
    d_log_decay = torch.empty_like(left)
    form = {"k": k, "low_rank": low_rank, "adds": adds}
    if low_rank:
        launcher(_within_kernel)[(rows * steps, v // 64)](query_writer, d_o, within, v, num_warps=4, num_stages=1)
    launcher(_backward_states_kernel)[(rows, v // 64)](
        faded, written_end, w, left, d_o, d_last, within, d_states, d_start, d_written,
        steps, v, k=k, low_rank=low_rank, num_warps=4, num_stages=stages(k),
    )  # fmt: skip
    launcher(_pairs_gradients_kernel)[(rows * steps,)](
        values, written, query_key, reader_key, inverses, key_end, d_o, d_written, d_states,
        d_y, d_values, d_query_writer, d_query_key, d_reader_writer, d_reader_key,
        v, **form, num_warps=4, num_stages=1,
    )  # fmt: skip
    launcher(vectors_gradients_kernel)[(rows * steps, k // 64)](
        queries, readers, writers, keys, values, left, written, states, d_o, d_y, d_states,
        d_query_writer, d_query_key, d_reader_writer, d_reader_key,
        d_queries, d_readers, d_writers, d_keys, d_log_decay,
        v, **form, num_warps=8, num_stages=1,
    )  # fmt: skip
    return d_queries, d_readers, d_writers, d_keys, d_values if adds else d_y, d_log_decay, d_start


def _buffer(values: Tensor, there: bool, width: int) -> Tensor:
    """Return room for a vector of this width for each token, or for nothing."""
    return values.new_empty((*values.shape[:2], width) if there else 0)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:5], *output[2:])
    ctx.set_materialize_grads(False)  # zeros for what the gradients are made of would be as large as that


def _backward(ctx: Any, d_o: Tensor | None, d_last: Tensor | None, *_: None) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    values, states = saved[4], saved[-2]
    d_o = torch.zeros_like(values) if d_o is None else d_o
    d_last = torch.zeros_like(states[:, 0], dtype=torch.float32) if d_last is None else d_last
    reached = _gradients(*saved, d_o, d_last)
    there = (True, *(x is not None for x in saved[1:4]), True, True, True)
    return tuple(x if given else None for x, given in zip(reached, there, strict=True))


channel_recurrence.register_autograd(_backward, setup_context=_save)
