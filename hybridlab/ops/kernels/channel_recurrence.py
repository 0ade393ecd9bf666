"""GPU kernels for recurrences with a decay per channel, in chunks of 64 tokens: GLA, Kimi Delta
Attention, RWKV-7.

    S_t = Diag(exp(g_t)) S_{t-1} + b_t z_tᵀ + k_t v_tᵀ,    o_t = S_tᵀ q_t,    z_t = S_{t-1}ᵀ a_t.

`low_rank`: a and b are given. `adds`: k is given; without k, z_t is v_t plus what a reads, so that
b writes both (the delta rule), and a reads the state after its decay. Within a chunk that starts
from S,

    Z = T (Y + A S),    T = (I - [a, b])⁻¹,    Y = [a, k] V or V,    O = Q S + [q, b] Z + [q, k] V,

where [x, y] are the products of later tokens' x with earlier tokens' y, decayed between the two (q
also meets its own token), and A and Q are a and q decayed since the chunk's start. The gradient of
Y is Tᵀ dZ and that of [a, b] is (Tᵀ dZ) Zᵀ: the inverse needs no gradient of its own. Only the
states are sequential: one kernel steps through the chunks of a sequence with 64 columns of S in
registers, forward from the first and backward from the last; the other kernels run all chunks in
parallel.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from hybridlab.ops.kernels.channel_decay import decay_at_read, tile
from hybridlab.ops.kernels.channel_products import products_kernel, vectors_gradients_kernel
from hybridlab.ops.kernels.chunk_recurrence import stages
from hybridlab.ops.kernels.launch import launcher
from hybridlab.ops.kernels.padding import CHUNK
from hybridlab.ops.kernels.triangular_inverse import inverse


@triton.jit
def _transposed(pointer, chunk):
    """Return pointers to the transpose of a chunk's matrix of token pairs."""
    i, j = tl.arange(0, 64), tl.arange(0, 64)
    return pointer + chunk * 64 * 64 + j[None, :] * 64 + i[:, None]


@triton.jit
def _solutions_kernel(
    readers, values, cum_log_decay, reader_writer, reader_key, inverses, w, u,
    k: tl.constexpr, v: tl.constexpr, adds: tl.constexpr,
):  # fmt: skip
    """Compute W = T A and U = T Y, so that the chunk's tokens read and write Z = U + W S."""
    half = values.dtype.element_ty
    chunk, i = tl.program_id(0).to(tl.int64), tl.arange(0, 64)
    t = inverse(-tl.load(tile(reader_writer, chunk, 64, 64, 0))).to(half)
    tl.store(tile(inverses, chunk, 64, 64, 0), t)
    for part in range(k // 64):
        reader = tl.load(tile(readers, chunk, 64, k, part)) * tl.exp(
            decay_at_read(cum_log_decay, chunk, i, k, part, adds)
        )
        tl.store(tile(w, chunk, 64, k, part), tl.dot(t, reader.to(half)).to(half))
    for part in range(v // 64):
        value = tl.load(tile(values, chunk, 64, v, part))
        if adds:
            value = tl.dot(tl.load(tile(reader_key, chunk, 64, 64, 0)), value).to(half)
        tl.store(tile(u, chunk, 64, v, part), tl.dot(t, value).to(half))


@triton.jit
def _states_kernel(
    writer_to_end, key_to_end, values, w, u, cum_log_decay, start, states, last, written,
    chunks, width, k: tl.constexpr, low_rank: tl.constexpr, adds: tl.constexpr,
):  # fmt: skip
    half = values.dtype.element_ty
    seq, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    state = tl.load(tile(start, seq, k, width, part))
    for step in range(chunks):
        chunk = seq * chunks + step
        tl.store(tile(states, chunk, k, width, part), state.to(half))
        new_state = tl.exp(tl.load(cum_log_decay + (chunk * 64 + 63) * k + tl.arange(0, k)))[:, None] * state
        if low_rank:
            z = tl.load(tile(u, chunk, 64, width, part)).to(tl.float32)
            z = tl.dot(tl.load(_all_columns(w, chunk, k)), state.to(half), acc=z).to(half)
            tl.store(tile(written, chunk, 64, width, part), z)
            new_state = tl.dot(tl.trans(tl.load(_all_columns(writer_to_end, chunk, k))), z, acc=new_state)
        if adds:
            new_state = tl.dot(
                tl.trans(tl.load(_all_columns(key_to_end, chunk, k))),
                tl.load(tile(values, chunk, 64, width, part)),
                acc=new_state,
            )
        state = new_state
    tl.store(tile(last, seq, k, width, part), state)


@triton.jit
def _all_columns(pointer, chunk, width: tl.constexpr):
    """Return pointers to all columns of the vectors of a chunk's tokens."""
    return pointer + (chunk * 64 + tl.arange(0, 64))[:, None] * width + tl.arange(0, width)[None, :]


@triton.jit
def _outputs_kernel(
    decayed_query, query_writer, query_key, values, written, states, o,
    width, k: tl.constexpr, low_rank: tl.constexpr, adds: tl.constexpr,
):  # fmt: skip
    chunk, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    acc = tl.dot(tl.load(_all_columns(decayed_query, chunk, k)), tl.load(tile(states, chunk, k, width, part)))
    if low_rank:
        z = tl.load(tile(written, chunk, 64, width, part))
        acc = tl.dot(tl.load(tile(query_writer, chunk, 64, 64, 0)), z, acc=acc)
    if adds:
        value = tl.load(tile(values, chunk, 64, width, part))
        acc = tl.dot(tl.load(tile(query_key, chunk, 64, 64, 0)), value, acc=acc)
    tl.store(tile(o, chunk, 64, width, part), acc.to(o.dtype.element_ty))


@triton.jit
def _local_gradients_kernel(query_writer, d_o, d_local, width):
    """Compute the gradient of Z through the outputs of its own chunk."""
    chunk, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    acc = tl.dot(tl.load(_transposed(query_writer, chunk)), tl.load(tile(d_o, chunk, 64, width, part)))
    tl.store(tile(d_local, chunk, 64, width, part), acc.to(d_local.dtype.element_ty))


@triton.jit
def _backward_states_kernel(
    decayed_query, writer_to_end, w, cum_log_decay, d_o, d_last, d_local, d_states, d_start, d_written,
    chunks, width, k: tl.constexpr, low_rank: tl.constexpr,
):  # fmt: skip
    half = d_o.dtype.element_ty
    seq, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    grad_state = tl.load(tile(d_last, seq, k, width, part))
    for step in range(chunks):
        chunk = seq * chunks + chunks - 1 - step
        tl.store(tile(d_states, chunk, k, width, part), grad_state.to(half))
        grad_before = tl.exp(tl.load(cum_log_decay + (chunk * 64 + 63) * k + tl.arange(0, k)))[:, None] * grad_state
        grad_before = tl.dot(
            tl.trans(tl.load(_all_columns(decayed_query, chunk, k))),
            tl.load(tile(d_o, chunk, 64, width, part)),
            acc=grad_before,
        )
        if low_rank:
            grad_z = tl.load(tile(d_local, chunk, 64, width, part)).to(tl.float32)
            grad_z = tl.dot(tl.load(_all_columns(writer_to_end, chunk, k)), grad_state.to(half), acc=grad_z).to(half)
            tl.store(tile(d_written, chunk, 64, width, part), grad_z)
            grad_before = tl.dot(tl.trans(tl.load(_all_columns(w, chunk, k))), grad_z, acc=grad_before)
        grad_state = grad_before
    tl.store(tile(d_start, seq, k, width, part), grad_state)


@triton.jit
def _pairs_gradients_kernel(
    values, written, query_key, reader_key, inverses, key_to_end, d_o, d_written, d_states,
    d_y, d_values, d_query_writer, d_query_key, d_reader_writer, d_reader_key,
    width, k: tl.constexpr, low_rank: tl.constexpr, adds: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of the values and of the products of all token pairs."""
    half = values.dtype.element_ty
    chunk = tl.program_id(0).to(tl.int64)
    grad_qb, grad_ab = tl.zeros([64, 64], tl.float32), tl.zeros([64, 64], tl.float32)
    grad_qk, grad_ak = tl.zeros([64, 64], tl.float32), tl.zeros([64, 64], tl.float32)
    for part in range(width // 64):
        grad_o, value = tl.load(tile(d_o, chunk, 64, width, part)), tl.load(tile(values, chunk, 64, width, part))
        if low_rank:
            inverse_t = tl.load(_transposed(inverses, chunk))
            grad_y = tl.dot(inverse_t, tl.load(tile(d_written, chunk, 64, width, part))).to(half)
            tl.store(tile(d_y, chunk, 64, width, part), grad_y)
            z = tl.trans(tl.load(tile(written, chunk, 64, width, part)))
            grad_qb, grad_ab = tl.dot(grad_o, z, acc=grad_qb), tl.dot(grad_y, z, acc=grad_ab)
        if adds:
            grad_value = tl.dot(tl.load(_transposed(query_key, chunk)), grad_o)
            grad_value = tl.dot(
                tl.load(_all_columns(key_to_end, chunk, k)),
                tl.load(tile(d_states, chunk, k, width, part)),
                acc=grad_value,
            )
            grad_qk = tl.dot(grad_o, tl.trans(value), acc=grad_qk)
            if low_rank:
                grad_value = tl.dot(tl.load(_transposed(reader_key, chunk)), grad_y, acc=grad_value)
                grad_ak = tl.dot(grad_y, tl.trans(value), acc=grad_ak)
            tl.store(tile(d_values, chunk, 64, width, part), grad_value.to(half))
    if low_rank:
        tl.store(tile(d_query_writer, chunk, 64, 64, 0), grad_qb.to(half))
        tl.store(tile(d_reader_writer, chunk, 64, 64, 0), grad_ab.to(half))
    if adds:
        tl.store(tile(d_query_key, chunk, 64, 64, 0), grad_qk.to(half))
        if low_rank:
            tl.store(tile(d_reader_key, chunk, 64, 64, 0), grad_ak.to(half))


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
    """Return the outputs [r t v] of r sequences and their last states [r k v]; then what the
    backward pass reads.

    Queries, readers, writers and keys [r t k] are in any precision, values [r t v] in half
    precision, log_decay [r t k] and start [r k v] in float32; t, k and v are multiples of 64.
    Readers and writers are given together or not at all.
    """
    queries, values, start = queries.contiguous(), values.contiguous(), start.contiguous()
    (seqs, t, v), k = values.shape, queries.shape[-1]
    chunks, low_rank, adds = t // CHUNK, writers is not None, keys is not None
    cum_log_decay = log_decay.unflatten(1, (chunks, CHUNK)).cumsum(2).view(seqs, t, k)
    # The kernels never read inputs that are not given: any tensor stands in.
    readers, writers = (queries if x is None else x.contiguous() for x in (readers, writers))
    keys = queries if keys is None else keys.contiguous()

    query_writer, inverses, w, u, writer_to_end = (_buffer(values, low_rank, x) for x in (CHUNK, CHUNK, k, v, k))
    query_key, key_to_end, reader_key = (
        _buffer(values, adds, CHUNK),
        _buffer(values, adds, k),
        _buffer(values, adds and low_rank, CHUNK),
    )
    decayed_query, states = _buffer(values, True, k), values.new_empty(seqs, chunks, k, v)
    written, o = _buffer(values, low_rank, v), torch.empty_like(values)
    last = torch.empty_like(start)
    reader_writer = cum_log_decay.new_empty((seqs, t, CHUNK) if low_rank else 0)
    form = {"k": k, "low_rank": low_rank, "adds": adds}
    launcher(products_kernel)[(seqs * chunks,)](
        queries, readers, writers, keys, cum_log_decay,
        query_writer, query_key, reader_writer, reader_key, decayed_query, writer_to_end, key_to_end,
        **form, num_warps=2, num_stages=1,
    )  # fmt: skip
    if low_rank:
        launcher(_solutions_kernel)[(seqs * chunks,)](
            readers, values, cum_log_decay, reader_writer, reader_key, inverses, w, u,
            k=k, v=v, adds=adds, num_warps=4, num_stages=1,
        )  # fmt: skip
    launcher(_states_kernel)[(seqs, v // 64)](
        writer_to_end, key_to_end, values, w, u, cum_log_decay, start, states, last, written,
        chunks, v, **form, num_warps=4, num_stages=stages(k),
    )  # fmt: skip
    launcher(_outputs_kernel)[(seqs * chunks, v // 64)](
        decayed_query, query_writer, query_key, values, written, states, o, v, **form, num_warps=4, num_stages=1
    )
    return (
        o, last, cum_log_decay, query_writer, query_key, reader_key, inverses, w, decayed_query, writer_to_end,
        key_to_end, states, written,
    )  # fmt: skip


@triton_op("hybridlab::channel_recurrence_backward", mutates_args={})
def _gradients(
    queries: Tensor, readers: Tensor | None, writers: Tensor | None, keys: Tensor | None, values: Tensor,
    cum_log_decay: Tensor, query_writer: Tensor, query_key: Tensor, reader_key: Tensor, inverses: Tensor, w: Tensor,
    decayed_query: Tensor, writer_to_end: Tensor, key_to_end: Tensor, states: Tensor, written: Tensor,
    d_o: Tensor, d_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of queries, readers, writers, keys, values, log_decay and start."""
    queries, values, d_o, d_last = queries.contiguous(), values.contiguous(), d_o.contiguous(), d_last.contiguous()
    (seqs, t, v), k = values.shape, queries.shape[-1]
    chunks, low_rank, adds = t // CHUNK, writers is not None, keys is not None
    d_queries, d_start, d_states = torch.empty_like(queries), torch.empty_like(d_last), torch.empty_like(states)
    d_readers, d_writers, d_keys = (
        queries.new_empty(0) if x is None else torch.empty_like(x.contiguous()) for x in (readers, writers, keys)
    )
    readers, writers = (queries if x is None else x.contiguous() for x in (readers, writers))
    keys = queries if keys is None else keys.contiguous()

    d_local, d_written, d_y = (_buffer(values, low_rank, v) for _ in range(3))
    d_values = _buffer(values, adds, v)
    d_query_writer, d_reader_writer = _buffer(values, low_rank, CHUNK), _buffer(values, low_rank, CHUNK)
    d_query_key, d_reader_key = _buffer(values, adds, CHUNK), _buffer(values, adds and low_rank, CHUNK)
    d_log_decay = torch.empty_like(cum_log_decay)
    form = {"k": k, "low_rank": low_rank, "adds": adds}
    if low_rank:
        launcher(_local_gradients_kernel)[(seqs * chunks, v // 64)](
            query_writer, d_o, d_local, v, num_warps=4, num_stages=1
        )
    launcher(_backward_states_kernel)[(seqs, v // 64)](
        decayed_query, writer_to_end, w, cum_log_decay, d_o, d_last, d_local, d_states, d_start, d_written,
        chunks, v, k=k, low_rank=low_rank, num_warps=4, num_stages=stages(k),
    )  # fmt: skip
    launcher(_pairs_gradients_kernel)[(seqs * chunks,)](
        values, written, query_key, reader_key, inverses, key_to_end, d_o, d_written, d_states,
        d_y, d_values, d_query_writer, d_query_key, d_reader_writer, d_reader_key,
        v, **form, num_warps=4, num_stages=1,
    )  # fmt: skip
    launcher(vectors_gradients_kernel)[(seqs * chunks, k // 64)](
        queries, readers, writers, keys, values, cum_log_decay, written, states, d_o, d_y, d_states,
        d_query_writer, d_query_key, d_reader_writer, d_reader_key,
        d_queries, d_readers, d_writers, d_keys, d_log_decay,
        v, **form, num_warps=8, num_stages=1,
    )  # fmt: skip
    return d_queries, d_readers, d_writers, d_keys, d_values if adds else d_y, d_log_decay, d_start


def _buffer(values: Tensor, needed: bool, width: int) -> Tensor:
    """Allocate a vector of this width for each token, or nothing if it is not needed."""
    return values.new_empty((*values.shape[:2], width) if needed else 0)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:5], *output[2:])
    ctx.set_materialize_grads(False)  # zeros for the saved tensors would be as large as they are


def _backward(ctx: Any, d_o: Tensor | None, d_last: Tensor | None, *_: None) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    values, states = saved[4], saved[-2]
    d_o = torch.zeros_like(values) if d_o is None else d_o
    d_last = torch.zeros_like(states[:, 0], dtype=torch.float32) if d_last is None else d_last
    gradients = _gradients(*saved, d_o, d_last)
    present = (True, *(x is not None for x in saved[1:4]), True, True, True)
    return tuple(x if given else None for x, given in zip(gradients, present, strict=True))


channel_recurrence.register_autograd(_backward, setup_context=_save)
