"""Products of each pair of tokens of a chunk as decayed between them, by channel, and their gradients, as GPU kernels.

The rows of later tokens (queries, readers) meet the columns of earlier ones (writers, keys); see `channel_recurrence_triton`.
"""

import triton
import triton.language as tl

from hybridlab.ops.kernels.channel_decay import (
    are_joined,
    decay_seen,
    earlier_tokens,
    left_since,
    left_until,
    tile,
    vectors_of,
)


@triton.jit
def _store_own(products, rows, columns, number, width: tl.constexpr):
    """Store the products of each token's row with its own column, and zeros for later columns."""
    found, i = tl.zeros([64], tl.float32), tl.arange(0, 64)
    for part in range(width // 64):
        row = tl.load(tile(rows, number, 64, width, part)).to(tl.float32)
        found += tl.sum(row * tl.load(tile(columns, number, 64, width, part)), 1)
    own = tl.where(i[:, None] == i[None, :], found[:, None], 0.0)
    tl.store(tile(products, number, 64, 64, 0), own.to(products.dtype.element_ty), mask=i[:, None] <= i[None, :])


@triton.jit
def products_kernel(
    queries, readers, writers, keys, left,
    query_writer, query_key, reader_writer, reader_key, faded, written_end, key_end,
    k: tl.constexpr, low_rank: tl.constexpr, adds: tl.constexpr,
):  # fmt: skip
    """Multiply each token's query and reader with earlier tokens' writers and keys, as decayed between them."""
    half = faded.dtype.element_ty
    n = tl.program_id(0).to(tl.int64)
    for part in range(k // 64):
        g = decay_seen(left, n, tl.arange(0, 64), k, part, False)
        ended = tl.exp(tl.load(left + (n * 64 + 63) * k + part * 64 + tl.arange(0, 64))[None, :] - g)
        tl.store(tile(faded, n, 64, k, part), (tl.load(tile(queries, n, 64, k, part)) * tl.exp(g)).to(half))
        if low_rank:
            tl.store(tile(written_end, n, 64, k, part), (tl.load(tile(writers, n, 64, k, part)) * ended).to(half))
        if adds:
            tl.store(tile(key_end, n, 64, k, part), (tl.load(tile(keys, n, 64, k, part)) * ended).to(half))
    if low_rank:
        _store_own(query_writer, queries, writers, n, k)
    if adds:
        _store_own(query_key, queries, keys, n, k)
    if low_rank and adds:
        i = tl.arange(0, 64)
        tl.store(tile(reader_key, n, 64, 64, 0), tl.zeros([64, 64], half), mask=i[:, None] <= i[None, :])
    for level in range(6):
        earlier = earlier_tokens(level)
        later = earlier + (1 << level)
        qb, ab = tl.zeros([32, 32], tl.float32), tl.zeros([32, 32], tl.float32)
        qk, ak = tl.zeros([32, 32], tl.float32), tl.zeros([32, 32], tl.float32)
        for part in range(k // 32):
            until = left_until(left, n, earlier, level, k, part, 32)
            since = left_since(left, n, later, level, k, part, False, 32)
            query = (tl.load(vectors_of(queries, n, later, k, part, 32)) * since).to(half)
            if low_rank:
                since = left_since(left, n, later, level, k, part, adds, 32)
                reader = tl.load(vectors_of(readers, n, later, k, part, 32)) * since
                writer = tl.load(vectors_of(writers, n, earlier, k, part, 32)) * until
                qb = tl.dot(query, tl.trans(writer.to(half)), acc=qb)
                # Of readers and writers that are alike, the inverse is made of small differences: neither is rounded.
                ab = tl.dot(reader, tl.trans(writer), acc=ab, input_precision="tf32x3")
            if adds:
                key = tl.trans((tl.load(vectors_of(keys, n, earlier, k, part, 32)) * until).to(half))
                qk = tl.dot(query, key, acc=qk)
                if low_rank:
                    ak = tl.dot(reader.to(half), key, acc=ak)
        place, joined = (
            (n * 64 + later)[:, None] * 64 + earlier[None, :],
            are_joined(later[:, None], earlier[None, :], level),
        )
        if low_rank:
            tl.store(query_writer + place, qb.to(half), mask=joined)
            tl.store(reader_writer + place, ab, mask=joined)
        if adds:
            tl.store(query_key + place, qk.to(half), mask=joined)
            if low_rank:
                tl.store(reader_key + place, ak.to(half), mask=joined)


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
        earlier = earlier_tokens(level)
        until = left_until(left, number, earlier, level, width, part)
        place, joined = (
            number * 4096 + i[:, None] * 64 + earlier[None, :],
            are_joined(i[:, None], earlier[None, :], level),
        )
        column = tl.load(vectors_of(columns, number, earlier, width, part)) * until
        reached = tl.dot(tl.load(d_products + place, mask=joined, other=0.0), column.to(half))
        if two:
            column = tl.load(vectors_of(others, number, earlier, width, part)) * until
            reached = tl.dot(tl.load(d_others + place, mask=joined, other=0.0), column.to(half), acc=reached)
        since = left_since(left, number, i, level, width, part, early)
        found += reached * since
        weighed += reached * (tl.load(tile(rows, number, 64, width, part)) * since).to(half)
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
        later = earlier_tokens(level) + (1 << level)
        place, joined = number * 4096 + later[None, :] * 64 + i[:, None], are_joined(later[None, :], i[:, None], level)
        row = tl.load(vectors_of(rows, number, later, width, part)) * left_since(
            left, number, later, level, width, part, False
        )
        reached = tl.dot(tl.load(d_products + place, mask=joined, other=0.0), row.to(half))
        if two:
            row = tl.load(vectors_of(others, number, later, width, part))
            row = (row * left_since(left, number, later, level, width, part, early)).to(half)
            reached = tl.dot(tl.load(d_others + place, mask=joined, other=0.0), row, acc=reached)
        until = left_until(left, number, i, level, width, part)
        found += reached * until
        weighed += reached * (tl.load(tile(columns, number, 64, width, part)) * until).to(half)
    return found, weighed


@triton.jit
def _through_states(tokens, states, number, part, width, k: tl.constexpr):
    """Multiply what belongs to a chunk's tokens and has the width of values with 64 rows of a state, transposed."""
    found = tl.zeros([64, 64], tl.float32)
    for columns in range(width // 64):
        state = tl.load(tile(states, number * (k // 64) + part, 64, width, columns))
        found = tl.dot(tl.load(tile(tokens, number, 64, width, columns)), tl.trans(state), acc=found)
    return found


@triton.jit
def _store_columns_gradient(
    d_columns, columns, tokens, d_states, d_products, d_others, rows, others, left, number, part, width,
    g, end, diagonal, d_left, d_end,
    k: tl.constexpr, half: tl.constexpr, early: tl.constexpr, two: tl.constexpr,
):  # fmt: skip
    """Store what reaches 64 columns of the columns (writers, keys), which write `tokens` into the state after the chunk; return
    `d_left` and `d_end` with what they weigh."""
    d = _through_states(tokens, d_states, number, part, width, k) * tl.exp(end[None, :] - g)
    weighed = d * tl.load(tile(columns, number, 64, k, part))
    d_end += tl.sum(weighed, 0)
    d_left -= weighed
    found, weighed = _reached_columns(
        d_products, d_others, columns, rows, others, left, number, part, k, half, early, two
    )
    d_left -= weighed
    d += found + tl.load(d_products + diagonal).to(tl.float32)[:, None] * tl.load(tile(rows, number, 64, k, part))
    tl.store(tile(d_columns, number, 64, k, part), d.to(d_columns.dtype.element_ty))
    return d_left, d_end


@triton.jit
def vectors_gradients_kernel(
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
    g = decay_seen(left, n, tl.arange(0, 64), k, part, False)
    end = tl.load(left + (n * 64 + 63) * k + part * 64 + i)
    # What reaches the decay of a whole chunk.
    d_end = tl.zeros([64], tl.float32)
    for columns in range(width // 64):
        state = tl.load(tile(states, n * (k // 64) + part, 64, width, columns)).to(tl.float32)
        d_end += tl.sum(state * tl.load(tile(d_states, n * (k // 64) + part, 64, width, columns)), 1)
    d_end *= tl.exp(end)
    # What reaches each kind of vector through the states, then through the pairs of tokens, then from its own token.
    query = tl.load(tile(queries, n, 64, k, part)).to(tl.float32)
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
        d += tl.load(d_query_writer + diagonal).to(tl.float32)[:, None] * tl.load(tile(writers, n, 64, k, part))
    if adds:
        d += tl.load(d_query_key + diagonal).to(tl.float32)[:, None] * tl.load(tile(keys, n, 64, k, part))
    tl.store(tile(d_queries, n, 64, k, part), d.to(d_queries.dtype.element_ty))
    if low_rank:
        d_left, d_end = _store_columns_gradient(
            d_writers, writers, written, d_states, d_query_writer, d_reader_writer, queries, readers, left, n, part, width,
            g, end, diagonal, d_left, d_end, k, half, adds, True,
        )  # fmt: skip
    if adds:
        d_left, d_end = _store_columns_gradient(
            d_keys, keys, values, d_states, d_query_key, d_reader_key, queries, readers, left, n, part, width,
            g, end, diagonal, d_left, d_end, k, half, True, low_rank,
        )  # fmt: skip
    d_left += tl.where((i == 63)[:, None], d_end[None, :], 0.0)
    if low_rank:
        d = _through_states(d_y, states, n, part, width, k) * tl.exp(
            decay_seen(left, n, tl.arange(0, 64), k, part, adds)
        )
        found, weighed = _reached_rows(
            d_reader_writer, d_reader_key, readers, writers, keys, left, n, part, k, half, adds, adds
        )
        weighed += d * tl.load(tile(readers, n, 64, k, part))
        tl.store(tile(d_readers, n, 64, k, part), (d + found).to(d_readers.dtype.element_ty))
        d_left += weighed
    d_decay = tl.cumsum(d_left, 0, reverse=True)
    if adds and low_rank:  # a reader sees the state before its own token's decay
        d_decay -= weighed
    tl.store(tile(d_log_decay, n, 64, k, part), d_decay)
