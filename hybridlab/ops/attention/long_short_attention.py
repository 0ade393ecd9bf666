"""Causal softmax attention to the latest tokens and, in the same softmax, to a few slots for each earlier block.

Letters: c tokens of a block, r slots of a block, s slots in all; n queries, which stand at the last n of t keys.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.attention.fused_attention import fused_attention
from hybridlab.ops.precision import accumulation_dtype, autocast_off


def block_slots(x: Float[Tensor, "b h t k"], scores: Float[Tensor, "b h t r"], block: int) -> Float[Tensor, "b h s k"]:
    """Return r weighted means of each finished block, the weights a softmax of the scores over the block's own tokens.

    The dynamic projection of 2107.02192, which in causal form never crosses a border between blocks. A last block that
    is not finished has no slots.
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
    """Attend under one (n, s + t) mask; keys begin with block number `first`, slots with those of block 0.

    A query sees the tokens of its own block up to itself and of the one before, and the slots of all earlier blocks.
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
    """Give what `dense_long_short_attention` gives in O(n·(block + s)): each block of queries has keys of its own.

    They are a copy of all slots, its window and a mask: softmax attention as one call, which keeps no scores in memory.
    """
    (b, h, n, _), t = q.shape, k.shape[2]
    if n <= block:
        return dense_long_short_attention(q, k, v, slot_k, slot_v, block, rank, first)
    # Queries that nobody asked for fill the first block and the last one.
    missing = -t % block
    q = F.pad(q, (0, 0, t - n, missing)).unflatten(2, (-1, block)).flatten(0, 1)
    keys, values = (_windows(x, few, block) for x, few in ((k, slot_k), (v, slot_v)))
    mask = _visible(q.shape[1], slot_k.shape[2], block, rank, first, q.device)
    # Each block takes the place of a head, with a mask of its own.
    o = fused_attention(q, keys, values, mask[None])
    return o.flatten(1, 2)[:, t - n : t].unflatten(0, (b, h))


def _windows(
    x: Float[Tensor, "b h t k"], slots: Float[Tensor, "b h s k"], block: int
) -> Float[Tensor, "b*h blocks s+2*c k"]:
    """Return for each block all slots, the block before and itself."""
    x, slots = x.flatten(0, 1), slots.flatten(0, 1)
    x = F.pad(x, (0, 0, block, -x.shape[1] % block)).unflatten(1, (-1, block))
    slots = slots[:, None].expand(-1, x.shape[1] - 1, -1, -1)
    return torch.cat([slots, x[:, :-1], x[:, 1:]], dim=2)


def _visible(
    blocks: int, slots: int, block: int, rank: int, first: int, device: torch.device
) -> Bool[Tensor, "blocks c s+2*c"]:
    numbers = torch.arange(blocks, device=device)[:, None, None]
    earlier = torch.arange(slots, device=device) // rank < numbers + first
    before = (numbers > 0).expand(-1, block, block)
    own = torch.ones(block, block, dtype=torch.bool, device=device).tril()
    return torch.cat([earlier.expand(-1, block, -1), before, own.expand(blocks, -1, -1)], dim=2)
