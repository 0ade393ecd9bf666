"""Attention to listed blocks of keys as GPU kernels. A block meets the queries that list it, chunk by chunk; what each query
gets of each block, and each block of each chunk, is written down, and added up by kernels of their own in one order.

Letters: r rows of keys and s of queries (s is a multiple of r: several may choose from the same keys), n queries, that stand
at the last n of t keys, u heads that share a choice, m blocks in all rows, k and v widths, p pairs of a query and a block.
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
MET = 64  # vectors of queries that a block meets at once
# On Hopper, products of fewer columns are wrong where the first factor lies in registers (see `chunk_recurrence_triton`).
ROOM = 64


@triton.jit
def _vectors(pointer, numbers, inside, width, columns: tl.constexpr):
    """Load vectors by their numbers, as zeros where there are none."""
    c = tl.arange(0, columns)
    mask = inside[:, None] & (c < width)[None, :]
    return tl.load(pointer + numbers[:, None] * width + c[None, :], mask=mask, other=0.0)


@triton.jit
def _store(pointer, found, numbers, inside, width, columns: tl.constexpr):
    c = tl.arange(0, columns)
    mask = inside[:, None] & (c < width)[None, :]
    tl.store(pointer + numbers[:, None] * width + c[None, :], found.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _block(
    keys, values, owner, per_row, t, width, values_width,
    block: tl.constexpr, narrow: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """Return the positions of a block's keys, the keys and their values."""
    j = (owner % per_row) * block + tl.arange(0, block)
    numbers = owner // per_row * t + j
    return j, _vectors(keys, numbers, j < t, width, narrow), _vectors(values, numbers, j < t, values_width, wide)


@triton.jit
def _met(pairs, chunk_number, place, listed, n, t, heads, chunk: tl.constexpr, shared: tl.constexpr):
    """Return, for places in a chunk, the numbers of part and query, the query's position, and whether there is one."""
    slot, head = chunk_number.to(tl.int64) * chunk + place // shared, place % shared
    pair = tl.load(pairs + slot)
    here = (pair >= 0) & (head < heads)
    query = pair // listed
    # Where there is none, a whole block is seen, so that no sum of weights is zero.
    return slot * heads + head, query * heads + head, tl.where(here, t - n + query % n, t), here


@triton.jit
def _parts_kernel(
    queries, keys, values, pairs, owners, parts, logs, m, per_row, listed, n, t, heads, width, values_width,
    scale: tl.constexpr, chunk: tl.constexpr, shared: tl.constexpr, met: tl.constexpr,
    block: tl.constexpr, narrow: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """What each query of a chunk reads in the chunk's block, and the logarithm of the sum of its weights there."""
    number = tl.program_id(0)
    owner = tl.load(owners + number)
    if owner < m:
        j, key, value = _block(keys, values, owner, per_row, t, width, values_width, block, narrow, wide)
        for start in range(0, chunk * shared, met):
            part, query, i, here = _met(pairs, number, start + tl.arange(0, met), listed, n, t, heads, chunk, shared)
            s = tl.dot(_vectors(queries, query, here, width, narrow), tl.trans(key)) * scale
            s = tl.where(i[:, None] >= j[None, :], s, float("-inf"))
            top = tl.max(s, 1)
            weights = tl.exp2(s - top[:, None])
            total = tl.sum(weights, 1)
            o = tl.dot(weights.to(value.dtype), value) / total[:, None]
            _store(parts, o, part, here, values_width, wide)
            tl.store(logs + part, top + tl.log2(total), mask=here)


@triton.jit
def _parts_gradients_kernel(
    queries, keys, values, d_o, sums, deltas, pairs, owners, d_parts, d_key_parts, d_value_parts,
    m, per_row, listed, n, t, heads, width, values_width,
    scale: tl.constexpr, chunk: tl.constexpr, shared: tl.constexpr, met: tl.constexpr,
    block: tl.constexpr, narrow: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """What reaches each query of a chunk from the chunk's block, and the block's keys and values from the chunk."""
    number = tl.program_id(0)
    owner = tl.load(owners + number)
    if owner < m:
        j, key, value = _block(keys, values, owner, per_row, t, width, values_width, block, narrow, wide)
        of_key, of_value = tl.zeros([block, narrow], tl.float32), tl.zeros([block, wide], tl.float32)
        for start in range(0, chunk * shared, met):
            part, query, i, here = _met(pairs, number, start + tl.arange(0, met), listed, n, t, heads, chunk, shared)
            asked = _vectors(queries, query, here, width, narrow)
            arriving = _vectors(d_o, query, here, values_width, wide)
            total, delta = tl.load(sums + query, mask=here, other=0.0), tl.load(deltas + query, mask=here, other=0.0)
            s = tl.dot(asked, tl.trans(key)) * scale
            weights = tl.where((i[:, None] >= j[None, :]) & here[:, None], tl.exp2(s - total[:, None]), 0.0)
            of_value = tl.dot(tl.trans(weights.to(value.dtype)), arriving, acc=of_value)
            d_s = (weights * (tl.dot(arriving, tl.trans(value)) - delta[:, None])).to(key.dtype)
            of_key = tl.dot(tl.trans(d_s), asked, acc=of_key)
            _store(d_parts, tl.dot(d_s, key), part, here, width, narrow)
        into, all_of_it = number.to(tl.int64) * block + tl.arange(0, block), tl.full([block], True, tl.int1)
        _store(d_key_parts, of_key, into, all_of_it, width, narrow)
        _store(d_value_parts, of_value, into, all_of_it, values_width, wide)


@triton.jit
def _outputs_kernel(
    parts, logs, slots, o, sums, listed, count, heads, width,
    shared: tl.constexpr, met: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """Weigh what queries read in their blocks by the sums of their weights there."""
    place = tl.program_id(0).to(tl.int64) * met + tl.arange(0, met)
    query, head = place // shared, place % shared
    here = (query < count) & (head < heads)
    top = tl.full([met], float("-inf"), tl.float32)
    for number in range(listed):
        slot = tl.load(slots + query * listed + number, mask=here, other=-1)
        top = tl.maximum(top, tl.load(logs + slot * heads + head, mask=slot >= 0, other=float("-inf")))
    top = tl.where(here, top, 0.0)
    found, total = tl.zeros([met, wide], tl.float32), tl.zeros([met], tl.float32)
    for first in range(0, listed, 4):
        for i in tl.static_range(4):
            slot = tl.load(slots + query * listed + first + i, mask=here & (first + i < listed), other=-1)
            part = slot * heads + head
            weight = tl.exp2(tl.load(logs + part, mask=slot >= 0, other=float("-inf")) - top)
            total += weight
            found += weight[:, None] * _vectors(parts, part, slot >= 0, width, wide)
    _store(o, found / total[:, None], query * heads + head, here, width, wide)
    tl.store(sums + query * heads + head, top + tl.log2(total), mask=here)


@triton.jit
def _queries_kernel(
    d_parts, slots, d_queries, listed, count, heads, width,
    scale: tl.constexpr, shared: tl.constexpr, met: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """Add up what reaches queries from their blocks."""
    place = tl.program_id(0).to(tl.int64) * met + tl.arange(0, met)
    query, head = place // shared, place % shared
    here = (query < count) & (head < heads)
    found = tl.zeros([met, wide], tl.float32)
    for first in range(0, listed, 4):
        for i in tl.static_range(4):
            slot = tl.load(slots + query * listed + first + i, mask=here & (first + i < listed), other=-1)
            found += _vectors(d_parts, slot * heads + head, slot >= 0, width, wide)
    _store(d_queries, found * scale, query * heads + head, here, width, wide)


@triton.jit
def _keys_kernel(
    d_key_parts, d_value_parts, ends, d_keys, d_values, per_row, t, width, values_width,
    scale: tl.constexpr, block: tl.constexpr, met: tl.constexpr, narrow: tl.constexpr,
    wide: tl.constexpr,
):  # fmt: skip
    """Add up what reaches some keys and values of a block from its chunks."""
    owner, start = tl.program_id(0), tl.program_id(1) * met
    place = start + tl.arange(0, met)
    first, end = tl.load(ends + owner - 1, mask=owner > 0, other=0), tl.load(ends + owner)
    of_key, of_value = tl.zeros([met, narrow], tl.float32), tl.zeros([met, wide], tl.float32)
    for number in range(first, end, 4):
        for i in tl.static_range(4):
            inside = (number + i < end) & (place < block)
            of_key += _vectors(d_key_parts, (number + i) * block + place, inside, width, narrow)
            of_value += _vectors(d_value_parts, (number + i) * block + place, inside, values_width, wide)
    j = owner % per_row * block + place
    into = (owner // per_row).to(tl.int64) * t + j
    _store(d_keys, of_key * scale, into, j < t, width, narrow)
    _store(d_values, of_value, into, j < t, values_width, wide)


@triton.jit
def _deltas_kernel(o, d_o, deltas, count, width, met: tl.constexpr, wide: tl.constexpr):
    """The product of each output with its gradient."""
    vector = tl.program_id(0).to(tl.int64) * met + tl.arange(0, met)
    here = vector < count
    product = _vectors(o, vector, here, width, wide).to(tl.float32) * _vectors(d_o, vector, here, width, wide)
    tl.store(deltas + vector, tl.sum(product, 1), mask=here)


@triton_op("hybridlab::block_attention", mutates_args={})
def attend(
    queries: Tensor, keys: Tensor, values: Tensor, slots: Tensor, pairs: Tensor, owners: Tensor, ends: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the attention [s n u v] of queries [s n u k] to the keys and values [r t k], [r t v] of blocks that each
    query lists, at its own position or before it; and the logarithms [s n u] of the sums of weights, to the base of 2.

    `slots`, `pairs`, `owners` and `ends` are those of `block_pairs` of all s·n queries with the m blocks of `KERNEL_BLOCK` keys,
    in chunks of `chunk_length`; every query lists at least its own block. Half precision; widths at most 128.
    """
    queries, keys, values = queries.contiguous(), keys.contiguous(), values.contiguous()
    (s, n, heads, width), (rows, t, values_width), m = queries.shape, values.shape, ends.shape[0]
    listed, chunk, shared, wide = slots.shape[0] // (s * n), chunk_length(heads), _power(heads), _columns(values_width)
    parts, logs = values.new_empty(pairs.shape[0], heads, values_width), _numbers(queries, pairs.shape[0], heads)
    o, sums = values.new_empty(s, n, heads, values_width), _numbers(queries, s, n, heads)
    launcher(_parts_kernel)[(owners.shape[0],)](
        queries, keys, values, pairs, owners, parts, logs,
        m, m // rows, listed, n, t, heads, width, values_width,
        scale=width**-0.5 * LOG2_E, chunk=chunk, shared=shared, met=MET, block=KERNEL_BLOCK, narrow=_columns(width), wide=wide,
        num_warps=_warps(width, values_width), num_stages=1,
    )  # fmt: skip
    launcher(_outputs_kernel)[(triton.cdiv(s * n * shared, 16),)](
        parts, logs, slots, o, sums, listed, s * n, heads, values_width,
        shared=shared, met=16, wide=wide, num_warps=2,
    )  # fmt: skip
    return o, sums


@triton_op("hybridlab::block_attention_backward", mutates_args={})
def _gradients(
    queries: Tensor, keys: Tensor, values: Tensor, slots: Tensor, pairs: Tensor, owners: Tensor, ends: Tensor,
    o: Tensor, sums: Tensor, d_o: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    queries, keys, values, d_o = queries.contiguous(), keys.contiguous(), values.contiguous(), d_o.contiguous()
    (s, n, heads, width), (rows, t, values_width), m = queries.shape, values.shape, ends.shape[0]
    listed, chunk, shared = slots.shape[0] // (s * n), chunk_length(heads), _power(heads)
    narrow, wide, scale, per_row = _columns(width), _columns(values_width), width**-0.5, m // rows
    deltas, d_parts = torch.empty_like(sums), queries.new_empty(pairs.shape[0], heads, width)
    d_key_parts, d_value_parts = (
        _numbers(keys, owners.shape[0], KERNEL_BLOCK, width),
        _numbers(keys, owners.shape[0], KERNEL_BLOCK, values_width),
    )
    d_queries, d_keys, d_values = torch.empty_like(queries), torch.empty_like(keys), torch.empty_like(values)
    launcher(_deltas_kernel)[(triton.cdiv(s * n * heads, 32),)](
        o, d_o, deltas, s * n * heads, values_width, met=32, wide=wide, num_warps=4
    )
    launcher(_parts_gradients_kernel)[(owners.shape[0],)](
        queries, keys, values, d_o, sums, deltas, pairs, owners, d_parts, d_key_parts, d_value_parts,
        m, per_row, listed, n, t, heads, width, values_width,
        scale=scale * LOG2_E, chunk=chunk, shared=shared, met=MET, block=KERNEL_BLOCK, narrow=narrow, wide=wide,
        num_warps=_warps(width, values_width), num_stages=1,
    )  # fmt: skip
    launcher(_queries_kernel)[(triton.cdiv(s * n * shared, 16),)](
        d_parts, slots, d_queries, listed, s * n, heads, width,
        scale=scale, shared=shared, met=16, wide=narrow, num_warps=2,
    )  # fmt: skip
    launcher(_keys_kernel)[(m, KERNEL_BLOCK // 8)](
        d_key_parts, d_value_parts, ends, d_keys, d_values, per_row, t, width, values_width,
        scale=scale, block=KERNEL_BLOCK, met=8, narrow=narrow, wide=wide, num_warps=4,
    )  # fmt: skip
    return d_queries, d_keys, d_values


def chunk_length(heads: int) -> int:
    """Return how many queries a chunk has, for the number of heads that share a choice."""
    return min(1024 // _power(heads), 128)


def _power(heads: int) -> int:
    return triton.next_power_of_2(heads)


def _columns(width: int) -> int:
    return max(ROOM, triton.next_power_of_2(width))


def _warps(*widths: int) -> int:
    return 8 if max(widths) > 64 else 4


def _numbers(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape, dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _backward(ctx: Any, d_o: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return *_gradients(*ctx.saved_tensors, d_o), None, None, None, None


attend.register_autograd(_backward, setup_context=_save)
