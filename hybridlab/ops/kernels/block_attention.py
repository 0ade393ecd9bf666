"""GPU kernels for attention to listed blocks of keys.

Each block processes the queries that list it, in chunks. What each query reads in each block, and
the gradients that each block receives from each chunk, are stored and then summed by separate
kernels in a fixed order.

Letters: r sequences of keys and s of queries (s is a multiple of r: several may choose from the
same keys), n queries at the last n of t key positions, u heads that share a choice, m blocks in all
sequences, k and v widths, p pairs of a query and a block.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from hybridlab.ops.kernels.dispatch import KERNEL_BLOCK
from hybridlab.ops.kernels.launch import launcher

LOG2_E = 1.4426950408889634
QUERY_STEP = 64  # query vectors that a block processes at once
# On Hopper, products of fewer columns are wrong if the first factor is in registers (see
# `chunk_recurrence`).
MIN_COLUMNS = 64


@triton.jit
def _vectors(pointer, indices, valid, width, columns: tl.constexpr):
    """Load vectors by index, zeros where not valid."""
    c = tl.arange(0, columns)
    mask = valid[:, None] & (c < width)[None, :]
    return tl.load(pointer + indices[:, None] * width + c[None, :], mask=mask, other=0.0)


@triton.jit
def _store(pointer, values, indices, valid, width, columns: tl.constexpr):
    c = tl.arange(0, columns)
    mask = valid[:, None] & (c < width)[None, :]
    tl.store(pointer + indices[:, None] * width + c[None, :], values.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _load_block(
    keys, values, owner, blocks_per_seq, t, width, values_width,
    block: tl.constexpr, key_columns: tl.constexpr, value_columns: tl.constexpr,
):  # fmt: skip
    """Return the positions of a block's keys, the keys and the values."""
    j = (owner % blocks_per_seq) * block + tl.arange(0, block)
    indices = owner // blocks_per_seq * t + j
    return (
        j,
        _vectors(keys, indices, j < t, width, key_columns),
        _vectors(values, indices, j < t, values_width, value_columns),
    )


@triton.jit
def _queries_of_chunk(pairs, chunk_index, item, listed, n, t, heads, chunk: tl.constexpr, shared: tl.constexpr):
    """Return, for items of a chunk, the indices of partial result and query, the query's position,
    and whether it exists."""
    slot, head = chunk_index.to(tl.int64) * chunk + item // shared, item % shared
    pair = tl.load(pairs + slot)
    valid = (pair >= 0) & (head < heads)
    query = pair // listed
    # A query that does not exist sees the whole block, so that no sum of weights is zero.
    return slot * heads + head, query * heads + head, tl.where(valid, t - n + query % n, t), valid


@triton.jit
def _partials_kernel(
    queries, keys, values, pairs, owners, partials, log_sums,
    m, blocks_per_seq, listed, n, t, heads, width, values_width,
    scale: tl.constexpr, chunk: tl.constexpr, shared: tl.constexpr, step: tl.constexpr,
    block: tl.constexpr, key_columns: tl.constexpr, value_columns: tl.constexpr,
):  # fmt: skip
    """Compute what each query of a chunk reads in the chunk's block, and the log of its sum of
    weights there."""
    chunk_index = tl.program_id(0)
    owner = tl.load(owners + chunk_index)
    if owner < m:
        j, key, value = _load_block(
            keys, values, owner, blocks_per_seq, t, width, values_width, block, key_columns, value_columns
        )
        for start in range(0, chunk * shared, step):
            partial, query, i, valid = _queries_of_chunk(
                pairs, chunk_index, start + tl.arange(0, step), listed, n, t, heads, chunk, shared
            )
            s = tl.dot(_vectors(queries, query, valid, width, key_columns), tl.trans(key)) * scale
            s = tl.where(i[:, None] >= j[None, :], s, float("-inf"))
            top = tl.max(s, 1)
            weights = tl.exp2(s - top[:, None])
            total = tl.sum(weights, 1)
            o = tl.dot(weights.to(value.dtype), value) / total[:, None]
            _store(partials, o, partial, valid, values_width, value_columns)
            tl.store(log_sums + partial, top + tl.log2(total), mask=valid)


@triton.jit
def _partials_gradients_kernel(
    queries, keys, values, d_o, sums, deltas, pairs, owners, d_partials, d_key_partials, d_value_partials,
    m, blocks_per_seq, listed, n, t, heads, width, values_width,
    scale: tl.constexpr, chunk: tl.constexpr, shared: tl.constexpr, step: tl.constexpr,
    block: tl.constexpr, key_columns: tl.constexpr, value_columns: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of a chunk's queries through the chunk's block, and of the block's keys
    and values."""
    chunk_index = tl.program_id(0)
    owner = tl.load(owners + chunk_index)
    if owner < m:
        j, key, value = _load_block(
            keys, values, owner, blocks_per_seq, t, width, values_width, block, key_columns, value_columns
        )
        grad_key, grad_value = tl.zeros([block, key_columns], tl.float32), tl.zeros([block, value_columns], tl.float32)
        for start in range(0, chunk * shared, step):
            partial, query, i, valid = _queries_of_chunk(
                pairs, chunk_index, start + tl.arange(0, step), listed, n, t, heads, chunk, shared
            )
            query_vectors = _vectors(queries, query, valid, width, key_columns)
            grad_o = _vectors(d_o, query, valid, values_width, value_columns)
            total, delta = tl.load(sums + query, mask=valid, other=0.0), tl.load(deltas + query, mask=valid, other=0.0)
            s = tl.dot(query_vectors, tl.trans(key)) * scale
            weights = tl.where((i[:, None] >= j[None, :]) & valid[:, None], tl.exp2(s - total[:, None]), 0.0)
            grad_value = tl.dot(tl.trans(weights.to(value.dtype)), grad_o, acc=grad_value)
            d_s = (weights * (tl.dot(grad_o, tl.trans(value)) - delta[:, None])).to(key.dtype)
            grad_key = tl.dot(tl.trans(d_s), query_vectors, acc=grad_key)
            _store(d_partials, tl.dot(d_s, key), partial, valid, width, key_columns)
        target, all_rows = chunk_index.to(tl.int64) * block + tl.arange(0, block), tl.full([block], True, tl.int1)
        _store(d_key_partials, grad_key, target, all_rows, width, key_columns)
        _store(d_value_partials, grad_value, target, all_rows, values_width, value_columns)


@triton.jit
def _outputs_kernel(
    partials, log_sums, slots, o, sums, listed, num_queries, heads, width,
    shared: tl.constexpr, step: tl.constexpr, value_columns: tl.constexpr,
):  # fmt: skip
    """Average what each query read in its blocks, weighted by its sums of weights there."""
    item = tl.program_id(0).to(tl.int64) * step + tl.arange(0, step)
    query, head = item // shared, item % shared
    valid = (query < num_queries) & (head < heads)
    top = tl.full([step], float("-inf"), tl.float32)
    for which in range(listed):
        slot = tl.load(slots + query * listed + which, mask=valid, other=-1)
        top = tl.maximum(top, tl.load(log_sums + slot * heads + head, mask=slot >= 0, other=float("-inf")))
    top = tl.where(valid, top, 0.0)
    acc, total = tl.zeros([step, value_columns], tl.float32), tl.zeros([step], tl.float32)
    for first in range(0, listed, 4):
        for i in tl.static_range(4):
            slot = tl.load(slots + query * listed + first + i, mask=valid & (first + i < listed), other=-1)
            partial = slot * heads + head
            weight = tl.exp2(tl.load(log_sums + partial, mask=slot >= 0, other=float("-inf")) - top)
            total += weight
            acc += weight[:, None] * _vectors(partials, partial, slot >= 0, width, value_columns)
    _store(o, acc / total[:, None], query * heads + head, valid, width, value_columns)
    tl.store(sums + query * heads + head, top + tl.log2(total), mask=valid)


@triton.jit
def _queries_kernel(
    d_partials, slots, d_queries, listed, num_queries, heads, width,
    scale: tl.constexpr, shared: tl.constexpr, step: tl.constexpr, value_columns: tl.constexpr,
):  # fmt: skip
    """Sum the gradients of queries over their blocks."""
    item = tl.program_id(0).to(tl.int64) * step + tl.arange(0, step)
    query, head = item // shared, item % shared
    valid = (query < num_queries) & (head < heads)
    acc = tl.zeros([step, value_columns], tl.float32)
    for first in range(0, listed, 4):
        for i in tl.static_range(4):
            slot = tl.load(slots + query * listed + first + i, mask=valid & (first + i < listed), other=-1)
            acc += _vectors(d_partials, slot * heads + head, slot >= 0, width, value_columns)
    _store(d_queries, acc * scale, query * heads + head, valid, width, value_columns)


@triton.jit
def _keys_kernel(
    d_key_partials, d_value_partials, ends, d_keys, d_values, blocks_per_seq, t, width, values_width,
    scale: tl.constexpr, block: tl.constexpr, step: tl.constexpr, key_columns: tl.constexpr,
    value_columns: tl.constexpr,
):  # fmt: skip
    """Sum the gradients of some keys and values of a block over its chunks."""
    owner, start = tl.program_id(0), tl.program_id(1) * step
    item = start + tl.arange(0, step)
    first, end = tl.load(ends + owner - 1, mask=owner > 0, other=0), tl.load(ends + owner)
    grad_key, grad_value = tl.zeros([step, key_columns], tl.float32), tl.zeros([step, value_columns], tl.float32)
    for chunk_index in range(first, end, 4):
        for i in tl.static_range(4):
            valid = (chunk_index + i < end) & (item < block)
            grad_key += _vectors(d_key_partials, (chunk_index + i) * block + item, valid, width, key_columns)
            grad_value += _vectors(
                d_value_partials, (chunk_index + i) * block + item, valid, values_width, value_columns
            )
    j = owner % blocks_per_seq * block + item
    target = (owner // blocks_per_seq).to(tl.int64) * t + j
    _store(d_keys, grad_key * scale, target, j < t, width, key_columns)
    _store(d_values, grad_value, target, j < t, values_width, value_columns)


@triton.jit
def _deltas_kernel(o, d_o, deltas, num_vectors, width, step: tl.constexpr, value_columns: tl.constexpr):
    """Compute the dot product of each output with its gradient."""
    vector = tl.program_id(0).to(tl.int64) * step + tl.arange(0, step)
    valid = vector < num_vectors
    product = _vectors(o, vector, valid, width, value_columns).to(tl.float32) * _vectors(
        d_o, vector, valid, width, value_columns
    )
    tl.store(deltas + vector, tl.sum(product, 1), mask=valid)


@triton_op("hybridlab::block_attention", mutates_args={})
def attend(
    queries: Tensor, keys: Tensor, values: Tensor, slots: Tensor, pairs: Tensor, owners: Tensor, ends: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the attention [s n u v] of queries [s n u k] to the keys [r t k] and values [r t v] of
    the blocks that each query lists, up to its own position; and the base-2 logs [s n u] of the
    sums of weights.

    `slots`, `pairs`, `owners` and `ends` are the `block_pairs` of all s·n queries with the m blocks
    of `KERNEL_BLOCK` keys, in chunks of `chunk_length`; every query lists at least its own block.
    Half precision; widths are at most 128.
    """
    queries, keys, values = queries.contiguous(), keys.contiguous(), values.contiguous()
    (s, n, heads, width), (key_seqs, t, values_width), m = queries.shape, values.shape, ends.shape[0]
    listed, chunk, shared = slots.shape[0] // (s * n), chunk_length(heads), _power(heads)
    value_columns = _columns(values_width)
    partials = values.new_empty(pairs.shape[0], heads, values_width)
    log_sums = _new_float32(queries, pairs.shape[0], heads)
    o, sums = values.new_empty(s, n, heads, values_width), _new_float32(queries, s, n, heads)
    launcher(_partials_kernel)[(owners.shape[0],)](
        queries, keys, values, pairs, owners, partials, log_sums,
        m, m // key_seqs, listed, n, t, heads, width, values_width,
        scale=width**-0.5 * LOG2_E, chunk=chunk, shared=shared, step=QUERY_STEP,
        block=KERNEL_BLOCK, key_columns=_columns(width), value_columns=value_columns,
        num_warps=_warps(width, values_width), num_stages=1,
    )  # fmt: skip
    launcher(_outputs_kernel)[(triton.cdiv(s * n * shared, 16),)](
        partials, log_sums, slots, o, sums, listed, s * n, heads, values_width,
        shared=shared, step=16, value_columns=value_columns, num_warps=2,
    )  # fmt: skip
    return o, sums


@triton_op("hybridlab::block_attention_backward", mutates_args={})
def _gradients(
    queries: Tensor, keys: Tensor, values: Tensor, slots: Tensor, pairs: Tensor, owners: Tensor, ends: Tensor,
    o: Tensor, sums: Tensor, d_o: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    queries, keys, values, d_o = queries.contiguous(), keys.contiguous(), values.contiguous(), d_o.contiguous()
    (s, n, heads, width), (key_seqs, t, values_width), m = queries.shape, values.shape, ends.shape[0]
    listed, chunk, shared = slots.shape[0] // (s * n), chunk_length(heads), _power(heads)
    key_columns, value_columns = _columns(width), _columns(values_width)
    scale, blocks_per_seq = width**-0.5, m // key_seqs
    deltas, d_partials = torch.empty_like(sums), queries.new_empty(pairs.shape[0], heads, width)
    d_key_partials = _new_float32(keys, owners.shape[0], KERNEL_BLOCK, width)
    d_value_partials = _new_float32(keys, owners.shape[0], KERNEL_BLOCK, values_width)
    d_queries, d_keys, d_values = torch.empty_like(queries), torch.empty_like(keys), torch.empty_like(values)
    launcher(_deltas_kernel)[(triton.cdiv(s * n * heads, 32),)](
        o, d_o, deltas, s * n * heads, values_width, step=32, value_columns=value_columns, num_warps=4
    )
    launcher(_partials_gradients_kernel)[(owners.shape[0],)](
        queries, keys, values, d_o, sums, deltas, pairs, owners, d_partials, d_key_partials, d_value_partials,
        m, blocks_per_seq, listed, n, t, heads, width, values_width,
        scale=scale * LOG2_E, chunk=chunk, shared=shared, step=QUERY_STEP,
        block=KERNEL_BLOCK, key_columns=key_columns, value_columns=value_columns,
        num_warps=_warps(width, values_width), num_stages=1,
    )  # fmt: skip
    launcher(_queries_kernel)[(triton.cdiv(s * n * shared, 16),)](
        d_partials, slots, d_queries, listed, s * n, heads, width,
        scale=scale, shared=shared, step=16, value_columns=key_columns, num_warps=2,
    )  # fmt: skip
    launcher(_keys_kernel)[(m, KERNEL_BLOCK // 8)](
        d_key_partials, d_value_partials, ends, d_keys, d_values, blocks_per_seq, t, width, values_width,
        scale=scale, block=KERNEL_BLOCK, step=8, key_columns=key_columns, value_columns=value_columns, num_warps=4,
    )  # fmt: skip
    return d_queries, d_keys, d_values


def chunk_length(heads: int) -> int:
    """Return the number of queries per chunk if this many heads share a choice."""
    return min(1024 // _power(heads), 128)


def _power(heads: int) -> int:
    return triton.next_power_of_2(heads)


def _columns(width: int) -> int:
    return max(MIN_COLUMNS, triton.next_power_of_2(width))


def _warps(*widths: int) -> int:
    return 8 if max(widths) > 64 else 4


def _new_float32(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape, dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _backward(ctx: Any, d_o: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return *_gradients(*ctx.saved_tensors, d_o), None, None, None, None


attend.register_autograd(_backward, setup_context=_save)
