"""Scores within a chunk under a decay per channel.

A_ij = Σ_k query_ik key_jk exp(Σ_{j<l<i} g_lk) for j before i.

Letters: c tokens of a chunk, r queries and s keys per token, k channels; log decays g <= 0.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.linear.chunks import split_chunks


class DecayedProducts(NamedTuple):
    """Scores of queries and earlier keys, and queries and keys decayed to the chunk's boundaries.

    Queries are decayed from the chunk's start, keys to its end.
    """

    scores: Float[Tensor, "*b r s c c"]
    queries: Float[Tensor, "*b c r k"]
    keys: Float[Tensor, "*b c s k"]
    total_log_decay: Float[Tensor, "*b k"]  # from the chunk's start to its end


def dense_channel_decay(
    queries: Float[Tensor, "*b c r k"], keys: Float[Tensor, "*b c s k"], log_decay: Float[Tensor, "*b c k"]
) -> DecayedProducts:
    """Compute the definition: weight each pair of tokens in each channel (c·c·k elements)."""
    c, cum_log_decay = log_decay.shape[-2], log_decay.cumsum(-2)
    cum_before = cum_log_decay - log_decay
    not_past = torch.ones(c, c, dtype=torch.bool, device=queries.device).triu()
    log_weights = (cum_before[..., :, None, :] - cum_log_decay[..., None, :, :]).masked_fill(
        not_past[..., None], -torch.inf
    )
    scores = torch.einsum("...irk,...jsk,...ijk->...rsij", queries, keys, log_weights.exp())
    log_decay_to_end = cum_log_decay[..., -1:, :] - cum_log_decay
    return DecayedProducts(
        scores,
        queries * cum_before.exp()[..., None, :],
        keys * log_decay_to_end.exp()[..., None, :],
        cum_log_decay[..., -1, :],
    )


def channel_decay(
    queries: Float[Tensor, "*b c r k"],
    keys: Float[Tensor, "*b c s k"],
    log_decay: Float[Tensor, "*b c k"],
    safe_block: int = 1,
    dtype: torch.dtype | None = None,
) -> DecayedProducts:
    """Compute `dense_channel_decay` by matrix products in `dtype`.

    The chunk length c and `safe_block` are powers of two. The decay between two tokens factorises
    into a part per token, relative to a reference position. Unless that position lies between the
    two tokens, one of the factors overflows. So blocks of tokens are merged in pairs: queries of
    the right block, decayed from its start, are multiplied by keys of the left block, decayed to
    its end. Then the queries are decayed by the whole left block and the keys by the whole right
    block, and the blocks of twice the size are merged. No factor exceeds 1, whatever the decays
    (GLA, 2312.06635, splits its chunks for the same reason), and log decays are never subtracted.

    Within the first blocks, of `safe_block` tokens, one factor is the inverse of a decay. Values
    above 1 are for decays that stay above about exp(-80) over that many tokens.
    """
    c, r, s, dtype = *queries.shape[-3:-1], keys.shape[-2], dtype or queries.dtype
    size = min(safe_block, c)
    log_decay, queries, keys = (x.unflatten(dim, (-1, size)) for x, dim in ((log_decay, -2), (queries, -3), (keys, -3)))
    total_log_decay = log_decay.sum(-2)
    if size == 1:  # a single token has no earlier one
        queries, keys = queries.flatten(-3, -2), keys.flatten(-3, -2)
        scores = queries.new_zeros(*queries.shape[:-1], s, dtype=dtype)
    else:
        cum_log_decay = log_decay.cumsum(-2)
        queries = (queries * (cum_log_decay - log_decay).exp()[..., None, :]).flatten(-3, -2)
        inverse_keys = (keys * (-cum_log_decay).exp()[..., None, :]).flatten(-3, -2)
        not_past = torch.ones(size, size, dtype=torch.bool, device=queries.device).triu()
        not_past = not_past.repeat_interleave(r, 0).repeat_interleave(s, 1)
        scores = (queries.to(dtype) @ inverse_keys.to(dtype).mT).masked_fill(not_past, 0)
        keys = (keys * (cum_log_decay[..., -1:, :] - cum_log_decay).exp()[..., None, :]).flatten(-3, -2)
    # Blocks are matrices in which the queries (keys) of a token are adjacent: *b blocks size*r k.
    while size < c:
        query, key, block_scores = (x.unflatten(-3, (-1, 2)).unbind(-3) for x in (queries, keys, scores))
        left_decay, right_decay = total_log_decay.unflatten(-2, (-1, 2)).unbind(-2)
        cross_scores = query[1].to(dtype) @ key[0].to(dtype).mT
        scores = torch.cat(
            [F.pad(block_scores[0], (0, size * s)), torch.cat([cross_scores, block_scores[1]], dim=-1)], dim=-2
        )
        queries = torch.cat([query[0], query[1] * left_decay.exp()[..., None, :]], dim=-2)
        keys = torch.cat([key[0] * right_decay.exp()[..., None, :], key[1]], dim=-2)
        total_log_decay = left_decay + right_decay
        size *= 2
    return DecayedProducts(
        scores.squeeze(-3).unflatten(-1, (c, s)).unflatten(-3, (c, r)).movedim((-3, -1), (-4, -3)),
        queries.squeeze(-3).unflatten(-2, (c, r)),
        keys.squeeze(-3).unflatten(-2, (c, s)),
        total_log_decay.squeeze(-2),
    )


def split_power_of_two_chunks(chunk: int, *xs: Float[Tensor, "b h t _"]) -> list[Float[Tensor, "b h n c _"]]:
    """Split time into chunks whose length is a power of two.

    The length is at most `chunk`, and less than twice the length of the sequence. The last chunk is
    padded with zeros, which leave the recurrence unchanged.
    """
    t = xs[0].shape[2]
    size = min(chunk, 1 << (t - 1).bit_length())
    return [split_chunks(x, size) for x in xs]
