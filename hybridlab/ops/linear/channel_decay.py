"""What tokens of a chunk share under a decay per channel: A_ij = Σ_c row_ic column_jc exp(Σ_{j<l<i} g_lc) for j before i.

Letters: c tokens of a chunk, r rows and s columns per token, k channels; log decays g <= 0.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.linear import chunks


class Decayed(NamedTuple):
    """Products of rows with earlier columns; rows as decayed since the chunk's start, columns as decayed at its end."""

    scores: Float[Tensor, "*b r s c c"]
    rows: Float[Tensor, "*b c r k"]
    columns: Float[Tensor, "*b c s k"]
    total: Float[Tensor, "*b k"]  # the log decay from the chunk's start to its end


def dense_channel_decay(
    rows: Float[Tensor, "*b c r k"], columns: Float[Tensor, "*b c s k"], log_decay: Float[Tensor, "*b c k"]
) -> Decayed:
    """Weigh each pair of tokens in each channel: the definition, with c·c·k numbers per chunk."""
    c, upto = log_decay.shape[-2], log_decay.cumsum(-2)
    before = upto - log_decay
    later = torch.ones(c, c, dtype=torch.bool, device=rows.device).triu()
    between = (before[..., :, None, :] - upto[..., None, :, :]).masked_fill(later[..., None], -torch.inf)
    scores = torch.einsum("...irk,...jsk,...ijk->...rsij", rows, columns, between.exp())
    after = upto[..., -1:, :] - upto
    return Decayed(scores, rows * before.exp()[..., None, :], columns * after.exp()[..., None, :], upto[..., -1, :])


def channel_decay(
    rows: Float[Tensor, "*b c r k"],
    columns: Float[Tensor, "*b c s k"],
    log_decay: Float[Tensor, "*b c k"],
    safe: int = 1,
    dtype: torch.dtype | None = None,
) -> Decayed:
    """Give what `dense_channel_decay` gives by matrix products (in `dtype`), for c and `safe` powers of two.

    The decay between two tokens is a factor of the one times a factor of the other, if both are taken relative to some
    place; but relative to a place that is not between them, one of the factors overflows. So blocks of tokens are
    joined two and two: rows of the right one, as decayed since its start, meet columns of the left one, as decayed at
    its end. Then the rows are decayed by the whole left block, the columns by the whole right one, and the blocks of
    twice the size are joined. No factor is above 1, whatever the decays (GLA, 2312.06635, parts its chunks for the same
    reason), and no log decays are subtracted. Within the first blocks, of `safe` tokens, one factor is the inverse of a
    decay: for decays that are known to stay above exp(-80) or so over so many tokens.
    """
    c, r, s, dtype = *rows.shape[-3:-1], columns.shape[-2], dtype or rows.dtype
    size = min(safe, c)
    log_decay, rows, columns = (x.unflatten(dim, (-1, size)) for x, dim in ((log_decay, -2), (rows, -3), (columns, -3)))
    total = log_decay.sum(-2)
    if size == 1:  # no token is before the only one
        rows, columns = rows.flatten(-3, -2), columns.flatten(-3, -2)
        scores = rows.new_zeros(*rows.shape[:-1], s, dtype=dtype)
    else:
        upto = log_decay.cumsum(-2)
        rows = (rows * (upto - log_decay).exp()[..., None, :]).flatten(-3, -2)
        inverse = (columns * (-upto).exp()[..., None, :]).flatten(-3, -2)
        later = torch.ones(size, size, dtype=torch.bool, device=rows.device).triu()
        later = later.repeat_interleave(r, 0).repeat_interleave(s, 1)
        scores = (rows.to(dtype) @ inverse.to(dtype).mT).masked_fill(later, 0)
        columns = (columns * (upto[..., -1:, :] - upto).exp()[..., None, :]).flatten(-3, -2)
    # Blocks as matrices, with the rows (columns) of a token next to each other: *b blocks size*r k.
    while size < c:
        row, column, score = (x.unflatten(-3, (-1, 2)).unbind(-3) for x in (rows, columns, scores))
        left, right = total.unflatten(-2, (-1, 2)).unbind(-2)
        across = row[1].to(dtype) @ column[0].to(dtype).mT
        scores = torch.cat([F.pad(score[0], (0, size * s)), torch.cat([across, score[1]], dim=-1)], dim=-2)
        rows = torch.cat([row[0], row[1] * left.exp()[..., None, :]], dim=-2)
        columns = torch.cat([column[0] * right.exp()[..., None, :], column[1]], dim=-2)
        total = left + right
        size *= 2
    return Decayed(
        scores.squeeze(-3).unflatten(-1, (c, s)).unflatten(-3, (c, r)).movedim((-3, -1), (-4, -3)),
        rows.squeeze(-3).unflatten(-2, (c, r)),
        columns.squeeze(-3).unflatten(-2, (c, s)),
        total.squeeze(-2),
    )


def in_chunks(chunk: int, *each: Float[Tensor, "b h t _"]) -> list[Float[Tensor, "b h n c _"]]:
    """Cut time into chunks of a power of two, of at most `chunk` tokens and not many more than there are.

    A last chunk that is not full is filled with zeros, which leave the recurrence as it is.
    """
    t = each[0].shape[2]
    size = min(chunk, 1 << (t - 1).bit_length())
    return [chunks.in_chunks(x, size) for x in each]


def check_chunk(chunk: int) -> None:
    """Refuse a chunk that cannot be halved down to single tokens."""
    if not isinstance(chunk, int) or isinstance(chunk, bool) or chunk < 1 or chunk & (chunk - 1):
        raise ValueError(f"chunk={chunk}: a power of two is needed")
