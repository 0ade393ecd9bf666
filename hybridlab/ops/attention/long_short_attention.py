"""Causal softmax attention to the latest tokens and, in the same softmax, to a few slots per
earlier block.

Letters: c tokens per block, r slots per block, s slots in total; n queries at the last n of t key
positions.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.attention.fused_attention import fused_attention
from hybridlab.ops.precision import accumulation_dtype, autocast_off


def block_slots(x: Float[Tensor, "b h t k"], scores: Float[Tensor, "b h t r"], block: int) -> Float[Tensor, "b h s k"]:
    """Return r weighted means per finished block; the weights are a softmax of the scores over the
    block's tokens.

    This is the dynamic projection of 2107.02192, which in causal form never crosses block
    boundaries. An unfinished last block has no slots.
    """
    with autocast_off(x):
        finished = x.shape[2] // block
        x, scores = (each[:, :, : finished * block].unflatten(2, (finished, block)) for each in (x, scores))
        weights = scores.to(accumulation_dtype(scores)).softmax(-2).to(x.dtype)
        return (weights.mT @ x).flatten(2, 3)


def dense_long_short_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t k"],
    slot_k: Float[Tensor, "b h s k"],
    slot_v: Float[Tensor, "b h s k"],
    block: int,
    rank: int,
    first: int = 0,
) -> Float[Tensor, "b h n k"]:
    """Attend under one (n, s + t) mask; keys start at block `first`, slots at block 0.

    A query sees the tokens of its own block up to itself, the block before, and the slots of all
    earlier blocks.
    """
    n, t, s = q.shape[2], k.shape[2], slot_k.shape[2]
    positions = torch.arange(t, device=q.device)
    queries, blocks = positions[t - n :, None], positions // block
    own = blocks[t - n :, None]
    slots = torch.arange(s, device=q.device) // rank < own + first
    mask = torch.cat([slots, (positions <= queries) & (blocks >= own - 1)], dim=1)
    return fused_attention(q, torch.cat([slot_k, k], dim=2), torch.cat([slot_v, v], dim=2), mask)


def long_short_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t k"],
    slot_k: Float[Tensor, "b h s k"],
    slot_v: Float[Tensor, "b h s k"],
    block: int,
    rank: int,
    first: int = 0,
) -> Float[Tensor, "b h n k"]:
    """Compute `dense_long_short_attention` in O(n·(block + s)): each block of queries has its own
    keys.

    These are a copy of all slots and the block's window, under a mask: one call of softmax
    attention, which keeps no scores in memory.
    """
    (b, h, n, _), t = q.shape, k.shape[2]
    if n <= block:
        return dense_long_short_attention(q, k, v, slot_k, slot_v, block, rank, first)
    # Padding queries fill the first and the last block.
    missing = -t % block
    q = F.pad(q, (0, 0, t - n, missing)).unflatten(2, (-1, block)).flatten(0, 1)
    keys, values = (_windows(x, few, block) for x, few in ((k, slot_k), (v, slot_v)))
    mask = _visible(q.shape[1], slot_k.shape[2], block, rank, first, q.device)
    # Blocks take the role of heads, each with its own mask.
    o = fused_attention(q, keys, values, mask[None])
    return o.flatten(1, 2)[:, t - n : t].unflatten(0, (b, h))


def _windows(
    x: Float[Tensor, "b h t k"], slots: Float[Tensor, "b h s k"], block: int
) -> Float[Tensor, "bh blocks seen k"]:
    """Return, for each block, all slots, the block before and the block itself."""
    x, slots = x.flatten(0, 1), slots.flatten(0, 1)
    x = F.pad(x, (0, 0, block, -x.shape[1] % block)).unflatten(1, (-1, block))
    slots = slots[:, None].expand(-1, x.shape[1] - 1, -1, -1)
    return torch.cat([slots, x[:, :-1], x[:, 1:]], dim=2)


def _visible(
    blocks: int, slots: int, block: int, rank: int, first: int, device: torch.device
) -> Bool[Tensor, "blocks c seen"]:
    numbers = torch.arange(blocks, device=device)[:, None, None]
    earlier = torch.arange(slots, device=device) // rank < numbers + first
    before = (numbers > 0).expand(-1, block, block)
    own = torch.ones(block, block, dtype=torch.bool, device=device).tril()
    return torch.cat([earlier.expand(-1, block, -1), before, own.expand(blocks, -1, -1)], dim=2)
