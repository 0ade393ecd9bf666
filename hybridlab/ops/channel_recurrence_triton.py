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

from hybridlab.ops.channel_recurrence import CHUNK
from hybridlab.ops.kernel_launch import launcher
from hybridlab.ops.triangular_inverse_triton import inverse


@triton.jit
def _tile(pointer, number, height: tl.constexpr, width, part):
    """Point at 64 columns of a matrix: of the vectors of a chunk's tokens, or of a state."""
    rows, columns = number * height + tl.arange(0, height), part * 64 + tl.arange(0, 64)
    return pointer + rows[:, None] * width + columns[None, :]


@triton.jit
def _turned(pointer, number):
    """Point at the transpose of a chunk's matrix of pairs of tokens."""
    i, j = tl.arange(0, 64), tl.arange(0, 64)
    return pointer + number * 64 * 64 + j[None, :] * 64 + i[:, None]


@triton.jit
def _vectors(pointer, number, tokens, width, part, across: tl.constexpr = 64):
    """Point at some columns of the vectors of some tokens of a chunk."""
    return pointer + (number * 64 + tokens)[:, None] * width + (part * across + tl.arange(0, across))[None, :]


@triton.jit
def _before(left, number, tokens, width, part, across: tl.constexpr = 64):
    """Return the log decay from the chunk's start until before each of the `tokens`."""
    return tl.load(_vectors(left, number, tokens - 1, width, part, across), mask=(tokens > 0)[:, None], other=0.0)


@triton.jit
def _seen(left, number, tokens, width, part, early: tl.constexpr, across: tl.constexpr = 64):
    """Return the log decay from the chunk's start until each token reads: before its own decay, if `early`."""
    return _before(left, number, tokens + (0 if early else 1), width, part, across)


# Any two tokens of a chunk are, at one level, in blocks of 2^level tokens next to each other that make up one of the next
# level: half of the tokens in the earlier block of their pair of blocks, half in the later one. So the decay between two
# tokens is a product of what is left since the later one's block began and of what is left when the earlier one's ended:
# two factors, neither of which is above 1, whatever the decays.
@triton.jit
def _earlier(level):
    """Return the 32 tokens in earlier blocks."""
    i = tl.arange(0, 32)
    return ((i >> level) << (level + 1)) | (i & ((1 << level) - 1))


@triton.jit
def _joined(later, earlier, level):
    """Mark the pairs of tokens that are in blocks next to each other."""
    return (later >> level == (earlier >> level) + 1) & ((earlier >> level) % 2 == 0)


@triton.jit
def _since(left, number, tokens, level, width, part, early: tl.constexpr, across: tl.constexpr = 64):
    """Return what is left, at each token, of what there was at the start of its block."""
    start = _before(left, number, (tokens >> level) << level, width, part, across)
    return tl.exp(_seen(left, number, tokens, width, part, early, across) - start)


@triton.jit
def _until(left, number, tokens, level, width, part, across: tl.constexpr = 64):
    """Return what is left of each token at the end of its block."""
    end = _before(left, number, ((tokens >> level) + 1) << level, width, part, across)
    return tl.exp(end - _before(left, number, tokens + 1, width, part, across))


@triton.jit
def _store_own(products, rows, columns, number, width: tl.constexpr):
    """Store the products of each token's row with its own column, and zeros for later columns."""
    found, i = tl.zeros([64], tl.float32), tl.arange(0, 64)
    for part in range(width // 64):
        row = tl.load(_tile(rows, number, 64, width, part)).to(tl.float32)
        found += tl.sum(row * tl.load(_tile(columns, number, 64, width, part)), 1)
    own = tl.where(i[:, None] == i[None, :], found[:, None], 0.0)
    tl.store(_tile(products, number, 64, 64, 0), own.to(products.dtype.element_ty), mask=i[:, None] <= i[None, :])


@triton.jit
def _products_kernel(
    queries, readers, writers, keys, left,
    query_writer, query_key, reader_writer, reader_key, faded, written_end, key_end,
    k: tl.constexpr, low_rank: tl.constexpr, adds: tl.constexpr,
):  # fmt: skip
    """Multiply each token's query and reader with earlier tokens' writers and keys, as decayed between them."""
    half = faded.dtype.element_ty
    n = tl.program_id(0).to(tl.int64)
    for part in range(k // 64):
        g = _seen(left, n, tl.arange(0, 64), k, part, False)
        ended = tl.exp(tl.load(left + (n * 64 + 63) * k + part * 64 + tl.arange(0, 64))[None, :] - g)
        tl.store(_tile(faded, n, 64, k, part), (tl.load(_tile(queries, n, 64, k, part)) * tl.exp(g)).to(half))
        if low_rank:
            tl.store(_tile(written_end, n, 64, k, part), (tl.load(_tile(writers, n, 64, k, part)) * ended).to(half))
        if adds:
            tl.store(_tile(key_end, n, 64, k, part), (tl.load(_tile(keys, n, 64, k, part)) * ended).to(half))
    if low_rank:
        _store_own(query_writer, queries, writers, n, k)
    if adds:
        _store_own(query_key, queries, keys, n, k)
    if low_rank and adds:
        i = tl.arange(0, 64)
        tl.store(_tile(reader_key, n, 64, 64, 0), tl.zeros([64, 64], half), mask=i[:, None] <= i[None, :])
    for level in range(6):
        earlier = _earlier(level)
        later = earlier + (1 << level)
        qb, ab = tl.zeros([32, 32], tl.float32), tl.zeros([32, 32], tl.float32)
        qk, ak = tl.zeros([32, 32], tl.float32), tl.zeros([32, 32], tl.float32)
        for part in range(k // 32):
            until = _until(left, n, earlier, level, k, part, 32)
            since = _since(left, n, later, level, k, part, False, 32)
            query = (tl.load(_vectors(queries, n, later, k, part, 32)) * since).to(half)
            if low_rank:
                since = _since(left, n, later, level, k, part, adds, 32)
                reader = tl.load(_vectors(readers, n, later, k, part, 32)) * since
                writer = tl.load(_vectors(writers, n, earlier, k, part, 32)) * until
                qb = tl.dot(query, tl.trans(writer.to(half)), acc=qb)
                # Of readers and writers that are alike, the inverse is made of small differences: neither is rounded.
                ab = tl.dot(reader, tl.trans(writer), acc=ab, input_precision="tf32x3")
            if adds:
                key = tl.trans((tl.load(_vectors(keys, n, earlier, k, part, 32)) * until).to(half))
                qk = tl.dot(query, key, acc=qk)
                if low_rank:
                    ak = tl.dot(reader.to(half), key, acc=ak)
        place, joined = (
            (n * 64 + later)[:, None] * 64 + earlier[None, :],
            _joined(later[:, None], earlier[None, :], level),
        )
        if low_rank:
            tl.store(query_writer + place, qb.to(half), mask=joined)
            tl.store(reader_writer + place, ab, mask=joined)
        if adds:
            tl.store(query_key + place, qk.to(half), mask=joined)
            if low_rank:
                tl.store(reader_key + place, ak.to(half), mask=joined)


@triton.jit
def _solutions_kernel(
    readers, values, left, reader_writer, reader_key, inverses, w, u,
    k: tl.constexpr, v: tl.constexpr, adds: tl.constexpr,
):  # fmt: skip
    """Solve for what a chunk's tokens read: of the state, and of each other."""
    half = values.dtype.element_ty
    n, i = tl.program_id(0).to(tl.int64), tl.arange(0, 64)
    t = inverse(-tl.load(_tile(reader_writer, n, 64, 64, 0))).to(half)
    tl.store(_tile(inverses, n, 64, 64, 0), t)
    for part in range(k // 64):
        reader = tl.load(_tile(readers, n, 64, k, part)) * tl.exp(_seen(left, n, i, k, part, adds))
        tl.store(_tile(w, n, 64, k, part), tl.dot(t, reader.to(half)).to(half))
    for part in range(v // 64):
        value = tl.load(_tile(values, n, 64, v, part))
        if adds:
            value = tl.dot(tl.load(_tile(reader_key, n, 64, 64, 0)), value).to(half)
        tl.store(_tile(u, n, 64, v, part), tl.dot(t, value).to(half))


@triton.jit
def _states_kernel(
    written_end, key_end, values, w, u, left, start, states, last, written,
    steps, width, k: tl.constexpr, low_rank: tl.constexpr, adds: tl.constexpr,
):  # fmt: skip
    half = values.dtype.element_ty
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    state = tl.load(_tile(start, row, k, width, part))
    for step in range(steps):
        n = row * steps + step
        tl.store(_tile(states, n, k, width, part), state.to(half))
        kept = tl.exp(tl.load(left + (n * 64 + 63) * k + tl.arange(0, k)))[:, None] * state
        if low_rank:
            z = tl.load(_tile(u, n, 64, width, part)).to(tl.float32)
            z = tl.dot(tl.load(_wide(w, n, k)), state.to(half), acc=z).to(half)
            tl.store(_tile(written, n, 64, width, part), z)
            kept = tl.dot(tl.trans(tl.load(_wide(written_end, n, k))), z, acc=kept)
        if adds:
            kept = tl.dot(tl.trans(tl.load(_wide(key_end, n, k))), tl.load(_tile(values, n, 64, width, part)), acc=kept)
        state = kept
    tl.store(_tile(last, row, k, width, part), state)


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
    found = tl.dot(tl.load(_wide(faded, n, k)), tl.load(_tile(states, n, k, width, part)))
    if low_rank:
        z = tl.load(_tile(written, n, 64, width, part))
        found = tl.dot(tl.load(_tile(query_writer, n, 64, 64, 0)), z, acc=found)
    if adds:
        value = tl.load(_tile(values, n, 64, width, part))
        found = tl.dot(tl.load(_tile(query_key, n, 64, 64, 0)), value, acc=found)
    tl.store(_tile(o, n, 64, width, part), found.to(o.dtype.element_ty))


@triton.jit
def _within_kernel(query_writer, d_o, within, width):
    """What reaches Z from the outputs of its own chunk."""
    n, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    found = tl.dot(tl.load(_turned(query_writer, n)), tl.load(_tile(d_o, n, 64, width, part)))
    tl.store(_tile(within, n, 64, width, part), found.to(within.dtype.element_ty))


@triton.jit
def _backward_states_kernel(
    faded, written_end, w, left, d_o, d_last, within, d_states, d_start, d_written,
    steps, width, k: tl.constexpr, low_rank: tl.constexpr,
):  # fmt: skip
    half = d_o.dtype.element_ty
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    arriving = tl.load(_tile(d_last, row, k, width, part))
    for turn in range(steps):
        n = row * steps + steps - 1 - turn
        tl.store(_tile(d_states, n, k, width, part), arriving.to(half))
        before = tl.exp(tl.load(left + (n * 64 + 63) * k + tl.arange(0, k)))[:, None] * arriving
        before = tl.dot(tl.trans(tl.load(_wide(faded, n, k))), tl.load(_tile(d_o, n, 64, width, part)), acc=before)
        if low_rank:
            dz = tl.load(_tile(within, n, 64, width, part)).to(tl.float32)
            dz = tl.dot(tl.load(_wide(written_end, n, k)), arriving.to(half), acc=dz).to(half)
            tl.store(_tile(d_written, n, 64, width, part), dz)
            before = tl.dot(tl.trans(tl.load(_wide(w, n, k))), dz, acc=before)
        arriving = before
    tl.store(_tile(d_start, row, k, width, part), arriving)


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
        d, value = tl.load(_tile(d_o, n, 64, width, part)), tl.load(_tile(values, n, 64, width, part))
        if low_rank:
            dy = tl.dot(tl.load(_turned(inverses, n)), tl.load(_tile(d_written, n, 64, width, part))).to(half)
            tl.store(_tile(d_y, n, 64, width, part), dy)
            z = tl.trans(tl.load(_tile(written, n, 64, width, part)))
            qb, ab = tl.dot(d, z, acc=qb), tl.dot(dy, z, acc=ab)
        if adds:
            d_value = tl.dot(tl.load(_turned(query_key, n)), d)
            d_value = tl.dot(tl.load(_wide(key_end, n, k)), tl.load(_tile(d_states, n, k, width, part)), acc=d_value)
            qk = tl.dot(d, tl.trans(value), acc=qk)
            if low_rank:
                d_value = tl.dot(tl.load(_turned(reader_key, n)), dy, acc=d_value)
                ak = tl.dot(dy, tl.trans(value), acc=ak)
            tl.store(_tile(d_values, n, 64, width, part), d_value.to(half))
    if low_rank:
        tl.store(_tile(d_query_writer, n, 64, 64, 0), qb.to(half))
        tl.store(_tile(d_reader_writer, n, 64, 64, 0), ab.to(half))
    if adds:
        tl.store(_tile(d_query_key, n, 64, 64, 0), qk.to(half))
        if low_rank:
            tl.store(_tile(d_reader_key, n, 64, 64, 0), ak.to(half))


# What reaches the log decays is the difference of what rows and columns weigh, in which the pairs that do not span a token
# cancel: to the last bit, because rows and columns are rounded alike where they are multiplied and where they are weighed.
@triton.jit
def _reached_rows(
    d_products, d_others, rows, columns, others, left, number, part,
    width: tl.constexpr, half: tl.constexpr, early: tl.constexpr, two: tl.constexpr,
):  # fmt: skip
    """Return what reaches 64 columns of the rows from their products with earlier columns (if `two`, also with the others),
    and its product with the rows."""
    found, weighed, i = tl.zeros([64, 64], tl.float32), tl.zeros([64, 64], tl.float32), tl.arange(0, 64)
    for level in range(6):
        earlier = _earlier(level)
        until = _until(left, number, earlier, level, width, part)
        place, joined = number * 4096 + i[:, None] * 64 + earlier[None, :], _joined(i[:, None], earlier[None, :], level)
        column = tl.load(_vectors(columns, number, earlier, width, part)) * until
        reached = tl.dot(tl.load(d_products + place, mask=joined, other=0.0), column.to(half))
        if two:
            column = tl.load(_vectors(others, number, earlier, width, part)) * until
            reached = tl.dot(tl.load(d_others + place, mask=joined, other=0.0), column.to(half), acc=reached)
        since = _since(left, number, i, level, width, part, early)
        found += reached * since
        weighed += reached * (tl.load(_tile(rows, number, 64, width, part)) * since).to(half)
    return found, weighed


@triton.jit
def _reached_columns(
    d_products, d_others, columns, rows, others, left, number, part,
    width: tl.constexpr, half: tl.constexpr, early: tl.constexpr, two: tl.constexpr,
):  # fmt: skip
    """Return what reaches 64 columns of the columns from their products with later rows (if `two`, also with the others, which
    are `early` or not), and its product with the columns."""
    found, weighed, i = tl.zeros([64, 64], tl.float32), tl.zeros([64, 64], tl.float32), tl.arange(0, 64)
    for level in range(6):
        later = _earlier(level) + (1 << level)
        place, joined = number * 4096 + later[None, :] * 64 + i[:, None], _joined(later[None, :], i[:, None], level)
        row = tl.load(_vectors(rows, number, later, width, part)) * _since(
            left, number, later, level, width, part, False
        )
        reached = tl.dot(tl.load(d_products + place, mask=joined, other=0.0), row.to(half))
        if two:
            row = tl.load(_vectors(others, number, later, width, part))
            row = (row * _since(left, number, later, level, width, part, early)).to(half)
            reached = tl.dot(tl.load(d_others + place, mask=joined, other=0.0), row, acc=reached)
        until = _until(left, number, i, level, width, part)
        found += reached * until
        weighed += reached * (tl.load(_tile(columns, number, 64, width, part)) * until).to(half)
    return found, weighed


@triton.jit
def _through_states(tokens, states, number, part, width, k: tl.constexpr):
    """Multiply what belongs to a chunk's tokens and has the width of values with 64 rows of a state, transposed."""
    found = tl.zeros([64, 64], tl.float32)
    for columns in range(width // 64):
        state = tl.load(_tile(states, number * (k // 64) + part, 64, width, columns))
        found = tl.dot(tl.load(_tile(tokens, number, 64, width, columns)), tl.trans(state), acc=found)
    return found


@triton.jit
def _vectors_gradients_kernel(
    queries, readers, writers, keys, values, left, written, states, d_o, d_y, d_states,
    d_query_writer, d_query_key, d_reader_writer, d_reader_key,
    d_queries, d_readers, d_writers, d_keys, d_log_decay,
    width, k: tl.constexpr, low_rank: tl.constexpr, adds: tl.constexpr,
):  # fmt: skip
    """What reaches 64 columns of the vectors of a chunk's tokens, and of their decays.

    A log decay weighs what is read after it, less what was written no earlier than it. What a query reads of its own token
    has no decay.
    """
    half = values.dtype.element_ty
    n, part, i = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, 64)
    diagonal = (n * 64 + i) * 64 + i
    g = _seen(left, n, tl.arange(0, 64), k, part, False)
    end = tl.load(left + (n * 64 + 63) * k + part * 64 + i)
    # What reaches the decay of a whole chunk.
    d_end = tl.zeros([64], tl.float32)
    for columns in range(width // 64):
        state = tl.load(_tile(states, n * (k // 64) + part, 64, width, columns)).to(tl.float32)
        d_end += tl.sum(state * tl.load(_tile(d_states, n * (k // 64) + part, 64, width, columns)), 1)
    d_end *= tl.exp(end)
    # What reaches each kind of vector through the states, then through the pairs of tokens, then from its own token.
    query = tl.load(_tile(queries, n, 64, k, part)).to(tl.float32)
    d = _through_states(d_o, states, n, part, width, k) * tl.exp(g)
    if low_rank:
        found, d_left = _reached_rows(
            d_query_writer, d_query_key, queries, writers, keys, left, n, part, k, half, False, adds
        )
    else:
        found, d_left = _reached_rows(
            d_query_key, d_query_key, queries, keys, keys, left, n, part, k, half, False, False
        )
    d_left += d * query
    d += found
    if low_rank:
        d += tl.load(d_query_writer + diagonal).to(tl.float32)[:, None] * tl.load(_tile(writers, n, 64, k, part))
    if adds:
        d += tl.load(d_query_key + diagonal).to(tl.float32)[:, None] * tl.load(_tile(keys, n, 64, k, part))
    tl.store(_tile(d_queries, n, 64, k, part), d.to(d_queries.dtype.element_ty))
    if low_rank:
        d = _through_states(written, d_states, n, part, width, k) * tl.exp(end[None, :] - g)
        weighed = d * tl.load(_tile(writers, n, 64, k, part))
        d_end += tl.sum(weighed, 0)
        d_left -= weighed
        found, weighed = _reached_columns(
            d_query_writer, d_reader_writer, writers, queries, readers, left, n, part, k, half, adds, True
        )
        d_left -= weighed
        d += found + tl.load(d_query_writer + diagonal).to(tl.float32)[:, None] * tl.load(
            _tile(queries, n, 64, k, part)
        )
        tl.store(_tile(d_writers, n, 64, k, part), d.to(d_writers.dtype.element_ty))
    if adds:
        d = _through_states(values, d_states, n, part, width, k) * tl.exp(end[None, :] - g)
        weighed = d * tl.load(_tile(keys, n, 64, k, part))
        d_end += tl.sum(weighed, 0)
        d_left -= weighed
        found, weighed = _reached_columns(
            d_query_key, d_reader_key, keys, queries, readers, left, n, part, k, half, True, low_rank
        )
        d_left -= weighed
        d += found + tl.load(d_query_key + diagonal).to(tl.float32)[:, None] * tl.load(_tile(queries, n, 64, k, part))
        tl.store(_tile(d_keys, n, 64, k, part), d.to(d_keys.dtype.element_ty))
    d_left += tl.where((i == 63)[:, None], d_end[None, :], 0.0)
    if low_rank:
        d = _through_states(d_y, states, n, part, width, k) * tl.exp(_seen(left, n, tl.arange(0, 64), k, part, adds))
        found, weighed = _reached_rows(
            d_reader_writer, d_reader_key, readers, writers, keys, left, n, part, k, half, adds, adds
        )
        weighed += d * tl.load(_tile(readers, n, 64, k, part))
        tl.store(_tile(d_readers, n, 64, k, part), (d + found).to(d_readers.dtype.element_ty))
        d_left += weighed
    d_decay = tl.cumsum(d_left, 0, reverse=True)
    if adds and low_rank:  # a reader sees the state before its own token's decay
        d_decay -= weighed
    tl.store(_tile(d_log_decay, n, 64, k, part), d_decay)


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

    def kept(there: bool, width: int) -> Tensor:
        return values.new_empty((rows, t, width) if there else 0)

    query_writer, inverses, w, u, written_end = (kept(low_rank, x) for x in (CHUNK, CHUNK, k, v, k))
    query_key, key_end, reader_key = kept(adds, CHUNK), kept(adds, k), kept(adds and low_rank, CHUNK)
    faded, states, written, o = (
        kept(True, k), values.new_empty(rows, steps, k, v), kept(low_rank, v), torch.empty_like(values),
    )  # fmt: skip
    last = torch.empty_like(start)
    reader_writer = left.new_empty((rows, t, CHUNK) if low_rank else 0)
    form = {"k": k, "low_rank": low_rank, "adds": adds}
    launcher(_products_kernel)[(rows * steps,)](
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
        steps, v, **form, num_warps=4, num_stages=_stages(k),
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

    def kept(there: bool, width: int) -> Tensor:
        return values.new_empty((rows, t, width) if there else 0)

    within, d_written, d_y = (kept(low_rank, v) for _ in range(3))
    d_values = kept(adds, v)
    d_query_writer, d_reader_writer = kept(low_rank, CHUNK), kept(low_rank, CHUNK)
    d_query_key, d_reader_key = kept(adds, CHUNK), kept(adds and low_rank, CHUNK)
    d_log_decay = torch.empty_like(left)
    form = {"k": k, "low_rank": low_rank, "adds": adds}
    if low_rank:
        launcher(_within_kernel)[(rows * steps, v // 64)](query_writer, d_o, within, v, num_warps=4, num_stages=1)
    launcher(_backward_states_kernel)[(rows, v // 64)](
        faded, written_end, w, left, d_o, d_last, within, d_states, d_start, d_written,
        steps, v, k=k, low_rank=low_rank, num_warps=4, num_stages=_stages(k),
    )  # fmt: skip
    launcher(_pairs_gradients_kernel)[(rows * steps,)](
        values, written, query_key, reader_key, inverses, key_end, d_o, d_written, d_states,
        d_y, d_values, d_query_writer, d_query_key, d_reader_writer, d_reader_key,
        v, **form, num_warps=4, num_stages=1,
    )  # fmt: skip
    launcher(_vectors_gradients_kernel)[(rows * steps, k // 64)](
        queries, readers, writers, keys, values, left, written, states, d_o, d_y, d_states,
        d_query_writer, d_query_key, d_reader_writer, d_reader_key,
        d_queries, d_readers, d_writers, d_keys, d_log_decay,
        v, **form, num_warps=8, num_stages=1,
    )  # fmt: skip
    return d_queries, d_readers, d_writers, d_keys, d_values if adds else d_y, d_log_decay, d_start


def _stages(k: int) -> int:
    """Return how many chunks a sequential kernel has on the way: as many as fit into shared memory."""
    return 3 if k < 128 else 2


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
