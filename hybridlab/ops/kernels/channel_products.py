"""GPU kernels for the products of all token pairs of a chunk, decayed per channel between the two
tokens, and gradients.

Rows come from the later token (queries, readers), columns from the earlier one (writers, keys); see
`channel_recurrence`.
"""

import triton
import triton.language as tl

from hybridlab.ops.kernels.channel_decay import (
    are_paired,
    decay_at_read,
    decay_since_block_start,
    decay_to_block_end,
    earlier_tokens,
    tile,
    token_vectors,
)


@triton.jit
def _store_diagonal(products, rows, columns, chunk, width: tl.constexpr):
    """Store the product of each token's row with its own column, and zeros for later columns."""
    acc, i = tl.zeros([64], tl.float32), tl.arange(0, 64)
    for part in range(width // 64):
        row = tl.load(tile(rows, chunk, 64, width, part)).to(tl.float32)
        acc += tl.sum(row * tl.load(tile(columns, chunk, 64, width, part)), 1)
    diagonal = tl.where(i[:, None] == i[None, :], acc[:, None], 0.0)
    tl.store(tile(products, chunk, 64, 64, 0), diagonal.to(products.dtype.element_ty), mask=i[:, None] <= i[None, :])


@triton.jit
def products_kernel(
    queries, readers, writers, keys, cum_log_decay,
    query_writer, query_key, reader_writer, reader_key, decayed_query, writer_to_end, key_to_end,
    k: tl.constexpr, low_rank: tl.constexpr, adds: tl.constexpr,
):  # fmt: skip
    """Multiply each token's query and reader by earlier tokens' writers and keys, decayed between
    the two."""
    half = decayed_query.dtype.element_ty
    chunk = tl.program_id(0).to(tl.int64)
    for part in range(k // 64):
        g = decay_at_read(cum_log_decay, chunk, tl.arange(0, 64), k, part, False)
        to_end = tl.exp(tl.load(cum_log_decay + (chunk * 64 + 63) * k + part * 64 + tl.arange(0, 64))[None, :] - g)
        tl.store(
            tile(decayed_query, chunk, 64, k, part), (tl.load(tile(queries, chunk, 64, k, part)) * tl.exp(g)).to(half)
        )
        if low_rank:
            tl.store(
                tile(writer_to_end, chunk, 64, k, part), (tl.load(tile(writers, chunk, 64, k, part)) * to_end).to(half)
            )
        if adds:
            tl.store(tile(key_to_end, chunk, 64, k, part), (tl.load(tile(keys, chunk, 64, k, part)) * to_end).to(half))
    if low_rank:
        _store_diagonal(query_writer, queries, writers, chunk, k)
    if adds:
        _store_diagonal(query_key, queries, keys, chunk, k)
    if low_rank and adds:
        i = tl.arange(0, 64)
        tl.store(tile(reader_key, chunk, 64, 64, 0), tl.zeros([64, 64], half), mask=i[:, None] <= i[None, :])
    for level in range(6):
        earlier = earlier_tokens(level)
        later = earlier + (1 << level)
        qb, ab = tl.zeros([32, 32], tl.float32), tl.zeros([32, 32], tl.float32)
        qk, ak = tl.zeros([32, 32], tl.float32), tl.zeros([32, 32], tl.float32)
        for part in range(k // 32):
            until = decay_to_block_end(cum_log_decay, chunk, earlier, level, k, part, 32)
            since = decay_since_block_start(cum_log_decay, chunk, later, level, k, part, False, 32)
            query = (tl.load(token_vectors(queries, chunk, later, k, part, 32)) * since).to(half)
            if low_rank:
                since = decay_since_block_start(cum_log_decay, chunk, later, level, k, part, adds, 32)
                reader = tl.load(token_vectors(readers, chunk, later, k, part, 32)) * since
                writer = tl.load(token_vectors(writers, chunk, earlier, k, part, 32)) * until
                qb = tl.dot(query, tl.trans(writer.to(half)), acc=qb)
                # If readers and writers are alike, the inverse consists of small differences:
                # neither is rounded.
                ab = tl.dot(reader, tl.trans(writer), acc=ab, input_precision="tf32x3")
            if adds:
                key = tl.trans((tl.load(token_vectors(keys, chunk, earlier, k, part, 32)) * until).to(half))
                qk = tl.dot(query, key, acc=qk)
                if low_rank:
                    ak = tl.dot(reader.to(half), key, acc=ak)
        offset, paired = (
            (chunk * 64 + later)[:, None] * 64 + earlier[None, :],
            are_paired(later[:, None], earlier[None, :], level),
        )
        if low_rank:
            tl.store(query_writer + offset, qb.to(half), mask=paired)
            tl.store(reader_writer + offset, ab, mask=paired)
        if adds:
            tl.store(query_key + offset, qk.to(half), mask=paired)
            if low_rank:
                tl.store(reader_key + offset, ak.to(half), mask=paired)


# The gradient of the log decays is the difference of two sums, over rows and over columns
# (`weighted`). Pairs that do not span a token cancel in it to the last bit, because both sums round
# rows and columns exactly as the products do.
@triton.jit
def _row_gradients(
    d_products, d_others, rows, columns, others, cum_log_decay, chunk, part,
    width: tl.constexpr, half: tl.constexpr, early: tl.constexpr, has_others: tl.constexpr,
):  # fmt: skip
    """Return the gradient of 64 channels of the rows through their products with earlier columns,
    and, if `has_others`, with the others; and that gradient times the rows."""
    d_rows, weighted, i = tl.zeros([64, 64], tl.float32), tl.zeros([64, 64], tl.float32), tl.arange(0, 64)
    for level in range(6):
        earlier = earlier_tokens(level)
        until = decay_to_block_end(cum_log_decay, chunk, earlier, level, width, part)
        offset, paired = (
            chunk * 4096 + i[:, None] * 64 + earlier[None, :],
            are_paired(i[:, None], earlier[None, :], level),
        )
        column = tl.load(token_vectors(columns, chunk, earlier, width, part)) * until
        partial = tl.dot(tl.load(d_products + offset, mask=paired, other=0.0), column.to(half))
        if has_others:
            column = tl.load(token_vectors(others, chunk, earlier, width, part)) * until
            partial = tl.dot(tl.load(d_others + offset, mask=paired, other=0.0), column.to(half), acc=partial)
        since = decay_since_block_start(cum_log_decay, chunk, i, level, width, part, early)
        d_rows += partial * since
        weighted += partial * (tl.load(tile(rows, chunk, 64, width, part)) * since).to(half)
    return d_rows, weighted


@triton.jit
def _column_gradients(
    d_products, d_others, columns, rows, others, cum_log_decay, chunk, part,
    width: tl.constexpr, half: tl.constexpr, early: tl.constexpr, has_others: tl.constexpr,
):  # fmt: skip
    """Return the gradient of 64 channels of the columns through their products with later rows,
    and, if `has_others`, with the others, which read before their own decay if `early`; and that
    gradient times the columns."""
    d_columns, weighted, i = tl.zeros([64, 64], tl.float32), tl.zeros([64, 64], tl.float32), tl.arange(0, 64)
    for level in range(6):
        later = earlier_tokens(level) + (1 << level)
        offset, paired = chunk * 4096 + later[None, :] * 64 + i[:, None], are_paired(later[None, :], i[:, None], level)
        row = tl.load(token_vectors(rows, chunk, later, width, part)) * decay_since_block_start(
            cum_log_decay, chunk, later, level, width, part, False
        )
        partial = tl.dot(tl.load(d_products + offset, mask=paired, other=0.0), row.to(half))
        if has_others:
            row = tl.load(token_vectors(others, chunk, later, width, part))
            row = (row * decay_since_block_start(cum_log_decay, chunk, later, level, width, part, early)).to(half)
            partial = tl.dot(tl.load(d_others + offset, mask=paired, other=0.0), row, acc=partial)
        until = decay_to_block_end(cum_log_decay, chunk, i, level, width, part)
        d_columns += partial * until
        weighted += partial * (tl.load(tile(columns, chunk, 64, width, part)) * until).to(half)
    return d_columns, weighted


@triton.jit
def _through_states(tokens, states, chunk, part, width, k: tl.constexpr):
    """Multiply a chunk's token vectors, as wide as values, by the transpose of 64 rows of a
    state."""
    acc = tl.zeros([64, 64], tl.float32)
    for columns in range(width // 64):
        state = tl.load(tile(states, chunk * (k // 64) + part, 64, width, columns))
        acc = tl.dot(tl.load(tile(tokens, chunk, 64, width, columns)), tl.trans(state), acc=acc)
    return acc


@triton.jit
def _store_column_gradients(
    d_columns, columns, tokens, d_states, d_products, d_others, rows, others, cum_log_decay, chunk, part, width,
    g, end, diagonal, d_cum_log_decay, d_end,
    k: tl.constexpr, half: tl.constexpr, early: tl.constexpr, has_others: tl.constexpr,
):  # fmt: skip
    """Store the gradient of 64 channels of the columns (writers, keys), which write `tokens` into
    the state after the chunk; return `d_cum_log_decay` and `d_end` with their share added."""
    grad = _through_states(tokens, d_states, chunk, part, width, k) * tl.exp(end[None, :] - g)
    weighted = grad * tl.load(tile(columns, chunk, 64, k, part))
    d_end += tl.sum(weighted, 0)
    d_cum_log_decay -= weighted
    from_pairs, weighted = _column_gradients(
        d_products, d_others, columns, rows, others, cum_log_decay, chunk, part, k, half, early, has_others
    )
    d_cum_log_decay -= weighted
    grad += from_pairs + tl.load(d_products + diagonal).to(tl.float32)[:, None] * tl.load(
        tile(rows, chunk, 64, k, part)
    )
    tl.store(tile(d_columns, chunk, 64, k, part), grad.to(d_columns.dtype.element_ty))
    return d_cum_log_decay, d_end


@triton.jit
def vectors_gradients_kernel(
    queries, readers, writers, keys, values, cum_log_decay, written, states, d_o, d_y, d_states,
    d_query_writer, d_query_key, d_reader_writer, d_reader_key,
    d_queries, d_readers, d_writers, d_keys, d_log_decay,
    width, k: tl.constexpr, low_rank: tl.constexpr, adds: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of 64 channels of the vectors of a chunk's tokens, and of their log
    decays.

    The gradient of a log decay is the sum over reads after it, minus the sum over writes at or
    after it. A query reads its own token without decay.
    """
    half = values.dtype.element_ty
    chunk, part, i = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, 64)
    diagonal = (chunk * 64 + i) * 64 + i
    g = decay_at_read(cum_log_decay, chunk, tl.arange(0, 64), k, part, False)
    end = tl.load(cum_log_decay + (chunk * 64 + 63) * k + part * 64 + i)
    # The gradient of the decay over the whole chunk.
    d_end = tl.zeros([64], tl.float32)
    for columns in range(width // 64):
        state = tl.load(tile(states, chunk * (k // 64) + part, 64, width, columns)).to(tl.float32)
        d_end += tl.sum(state * tl.load(tile(d_states, chunk * (k // 64) + part, 64, width, columns)), 1)
    d_end *= tl.exp(end)
    # For each kind of vector: the gradient through the states, then through token pairs, then
    # through its own token.
    query = tl.load(tile(queries, chunk, 64, k, part)).to(tl.float32)
    grad = _through_states(d_o, states, chunk, part, width, k) * tl.exp(g)
    if low_rank:
        from_pairs, d_cum_log_decay = _row_gradients(
            d_query_writer, d_query_key, queries, writers, keys, cum_log_decay, chunk, part, k, half, False, adds
        )
    else:
        from_pairs, d_cum_log_decay = _row_gradients(
            d_query_key, d_query_key, queries, keys, keys, cum_log_decay, chunk, part, k, half, False, False
        )
    d_cum_log_decay += grad * query
    grad += from_pairs
    if low_rank:
        grad += tl.load(d_query_writer + diagonal).to(tl.float32)[:, None] * tl.load(tile(writers, chunk, 64, k, part))
    if adds:
        grad += tl.load(d_query_key + diagonal).to(tl.float32)[:, None] * tl.load(tile(keys, chunk, 64, k, part))
    tl.store(tile(d_queries, chunk, 64, k, part), grad.to(d_queries.dtype.element_ty))
    if low_rank:
        d_cum_log_decay, d_end = _store_column_gradients(
            d_writers, writers, written, d_states, d_query_writer, d_reader_writer, queries, readers,
            cum_log_decay, chunk, part, width, g, end, diagonal, d_cum_log_decay, d_end, k, half, adds, True,
        )  # fmt: skip
    if adds:
        d_cum_log_decay, d_end = _store_column_gradients(
            d_keys, keys, values, d_states, d_query_key, d_reader_key, queries, readers,
            cum_log_decay, chunk, part, width, g, end, diagonal, d_cum_log_decay, d_end, k, half, True, low_rank,
        )  # fmt: skip
    d_cum_log_decay += tl.where((i == 63)[:, None], d_end[None, :], 0.0)
    if low_rank:
        grad = _through_states(d_y, states, chunk, part, width, k) * tl.exp(
            decay_at_read(cum_log_decay, chunk, tl.arange(0, 64), k, part, adds)
        )
        from_pairs, weighted = _row_gradients(
            d_reader_writer, d_reader_key, readers, writers, keys, cum_log_decay, chunk, part, k, half, adds, adds
        )
        weighted += grad * tl.load(tile(readers, chunk, 64, k, part))
        tl.store(tile(d_readers, chunk, 64, k, part), (grad + from_pairs).to(d_readers.dtype.element_ty))
        d_cum_log_decay += weighted
    d_decay = tl.cumsum(d_cum_log_decay, 0, reverse=True)
    if adds and low_rank:  # a reader reads the state before its own token's decay
        d_decay -= weighted
    tl.store(tile(d_log_decay, chunk, 64, k, part), d_decay)
