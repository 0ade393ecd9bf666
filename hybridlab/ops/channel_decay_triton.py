"""Products of rows with earlier columns under a decay per channel, as GPU kernels: a program for each 16 tokens of a chunk.

A decay between two blocks of tokens is what is left at the later one's start times what is left of that since: two
factors of at most 1, each a sum of log decays without a difference. Within a block every pair has its own exponential.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

CHUNK = 64
WARPS = 2


@triton.jit
def _block(pointer, token, stride, k: tl.constexpr):
    """Point at one vector of each of 16 tokens."""
    return pointer + (token + tl.arange(0, 16))[:, None] * stride + tl.arange(0, k)[None, :]


@triton.jit
def _before(g, token, k: tl.constexpr):
    """Return the log decay from a block's start to each of its tokens, without the token's own."""
    inside = (tl.arange(0, 16) > 0)[:, None]
    return tl.cumsum(tl.load(_block(g, token - 1, k, k), mask=inside, other=0.0), 0)


@triton.jit
def _after(g, token, k: tl.constexpr):
    """Return the log decay from each token of a block to the block's end, without the token's own."""
    inside = (tl.arange(0, 16) < 15)[:, None]
    return tl.cumsum(tl.load(_block(g, token + 1, k, k), mask=inside, other=0.0), 0, reverse=True)


@triton.jit
def _product(a, b, exact: tl.constexpr):
    return tl.dot(a, b, input_precision="tf32x3") if exact else tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16))


@triton.jit
def _scores_kernel(rows, columns, log_decay, scores, r, s, k: tl.constexpr, exact: tl.constexpr):
    n, block, pair = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    i, c, start = tl.arange(0, 16), tl.arange(0, k), block * 16
    g = log_decay + n * 64 * k
    of_row, of_column = rows + n * 64 * r * k + (pair // s) * k, columns + n * 64 * s * k + (pair % s) * k
    place = scores + (n * r * s + pair) * 64 * 64 + (start + i)[:, None] * 64 + i[None, :]
    row = tl.load(_block(of_row, start, r * k, k))
    decayed = row * tl.exp(_before(g, start, k))
    between = tl.zeros([k], tl.float32)
    for back in range(block):
        other = start - 16 - back * 16
        column = tl.load(_block(of_column, other, s * k, k)) * tl.exp(_after(g, other, k) + between[None, :])
        tl.store(place + other, _product(decayed, tl.trans(column), exact).to(scores.dtype.element_ty))
        between += tl.sum(tl.load(_block(g, other, k, k)), 0)
    own, left = tl.zeros([16, 16], tl.float32), tl.zeros([16, k], tl.float32)
    for back in range(16):
        j = 15 - back
        step = tl.load(g + (start + j + 1) * k + c, mask=(c < k) & (j < 15), other=0.0)
        left = tl.where((i > j + 1)[:, None], left + step[None, :], 0.0)
        column = tl.load(of_column + (start + j) * s * k + c)
        own = tl.where(i[None, :] == j, tl.sum(row * column[None, :] * tl.exp(left), 1)[:, None], own)
    tl.store(place + start, tl.where(i[:, None] > i[None, :], own, 0.0).to(scores.dtype.element_ty))
    for later in range(block + 1, 4):
        tl.store(place + later * 16, tl.zeros([16, 16], scores.dtype.element_ty))


@triton.jit
def _rows_kernel(columns, log_decay, d_scores, d_rows, r, s, k: tl.constexpr, exact: tl.constexpr):
    """What reaches the rows of a block: from each column before them."""
    n, block, number = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    i, c, start = tl.arange(0, 16), tl.arange(0, k), block * 16
    g = log_decay + n * 64 * k
    kept = tl.exp(_before(g, start, k))
    found = tl.zeros([16, k], tl.float32)
    for b in range(s):
        of_column = columns + n * 64 * s * k + b * k
        d_place = d_scores + ((n * r + number) * s + b) * 64 * 64 + (start + i) * 64
        across, between = tl.zeros([16, k], tl.float32), tl.zeros([k], tl.float32)
        for back in range(block):
            other = start - 16 - back * 16
            column = tl.load(_block(of_column, other, s * k, k)) * tl.exp(_after(g, other, k) + between[None, :])
            d = tl.load(d_place[:, None] + other + i[None, :]).to(tl.float32)
            across += _product(d, column, exact)
            between += tl.sum(tl.load(_block(g, other, k, k)), 0)
        found += across * kept
        left = tl.zeros([16, k], tl.float32)
        for back in range(16):
            j = 15 - back
            step = tl.load(g + (start + j + 1) * k + c, mask=(c < k) & (j < 15), other=0.0)
            left = tl.where((i > j + 1)[:, None], left + step[None, :], 0.0)
            column = tl.load(of_column + (start + j) * s * k + c)
            d = tl.load(d_place + start + j, mask=i > j, other=0.0).to(tl.float32)
            found += d[:, None] * column[None, :] * tl.exp(left)
    tl.store(_block(d_rows + n * 64 * r * k + number * k, start, r * k, k), found)


@triton.jit
def _columns_kernel(rows, log_decay, d_scores, d_columns, r, s, k: tl.constexpr, exact: tl.constexpr):
    """What reaches the columns of a block: from each row after them."""
    n, block, number = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    j, c, start = tl.arange(0, 16), tl.arange(0, k), block * 16
    g = log_decay + n * 64 * k
    kept = tl.exp(_after(g, start, k))
    found = tl.zeros([16, k], tl.float32)
    for a in range(r):
        of_row = rows + n * 64 * r * k + a * k
        d_place = d_scores + ((n * r + a) * s + number) * 64 * 64 + start + j
        across, between = tl.zeros([16, k], tl.float32), tl.zeros([k], tl.float32)
        for later in range(block + 1, 4):
            other = later * 16
            row = tl.load(_block(of_row, other, r * k, k)) * tl.exp(_before(g, other, k) + between[None, :])
            d = tl.load(d_place[:, None] + (other + j)[None, :] * 64).to(tl.float32)
            across += _product(d, row, exact)
            between += tl.sum(tl.load(_block(g, other, k, k)), 0)
        found += across * kept
        left = tl.zeros([16, k], tl.float32)
        for i in range(16):
            step = tl.load(g + (start + i - 1) * k + c, mask=(c < k) & (i > 0), other=0.0)
            left = tl.where((j < i - 1)[:, None], left + step[None, :], 0.0)
            row = tl.load(of_row + (start + i) * r * k + c)
            d = tl.load(d_place + (start + i) * 64, mask=j < i, other=0.0).to(tl.float32)
            found += d[:, None] * row[None, :] * tl.exp(left)
    tl.store(_block(d_columns + n * 64 * s * k + number * k, start, s * k, k), found)


@triton_op("hybridlab::channel_decay_scores", mutates_args={})
def decayed_scores(rows: Tensor, columns: Tensor, log_decay: Tensor, exact: bool) -> Tensor:
    """Return scores [n r s c c] of rows [n c r k], columns [n c s k] and log_decay [n c k], all float32 and c = 64.

    In float32 if `exact`, else in bfloat16.
    """
    rows, columns, log_decay = rows.contiguous(), columns.contiguous(), log_decay.contiguous()
    (n, c, r, k), s = rows.shape, columns.shape[2]
    scores = rows.new_empty(n, r, s, c, c, dtype=torch.float32 if exact else torch.bfloat16)
    wrap_triton(_scores_kernel)[(n, c // 16, r * s)](
        rows, columns, log_decay, scores, r, s, k=k, exact=exact, num_warps=WARPS, num_stages=1
    )
    return scores


@triton_op("hybridlab::channel_decay_scores_backward", mutates_args={})
def _gradients(
    rows: Tensor, columns: Tensor, log_decay: Tensor, d_scores: Tensor, exact: bool
) -> tuple[Tensor, Tensor]:
    rows, columns, log_decay, d_scores = (x.contiguous() for x in (rows, columns, log_decay, d_scores))
    (n, c, r, k), s = rows.shape, columns.shape[2]
    d_rows, d_columns = torch.empty_like(rows), torch.empty_like(columns)
    wrap_triton(_rows_kernel)[(n, c // 16, r)](
        columns, log_decay, d_scores, d_rows, r, s, k=k, exact=exact, num_warps=WARPS, num_stages=1
    )
    wrap_triton(_columns_kernel)[(n, c // 16, s)](
        rows, log_decay, d_scores, d_columns, r, s, k=k, exact=exact, num_warps=WARPS, num_stages=1
    )
    return d_rows, d_columns


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    rows, columns, log_decay, ctx.exact = inputs
    ctx.save_for_backward(rows, columns, log_decay)


def _backward(ctx: Any, d_scores: Tensor) -> tuple[Tensor | None, ...]:
    rows, columns, log_decay = ctx.saved_tensors
    d_rows, d_columns = _gradients(rows, columns, log_decay, d_scores, ctx.exact)
    # A log decay weighs the pairs it stands between: those whose row is after it, less those whose column is not before.
    of_rows, of_columns = (rows * d_rows).sum(2), (columns * d_columns).sum(2)
    d_log_decay = (of_rows - of_columns).flip(1).cumsum(1).flip(1) - of_rows
    return d_rows, d_columns, d_log_decay, None


decayed_scores.register_autograd(_backward, setup_context=_save)
