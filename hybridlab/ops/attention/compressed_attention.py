"""Attention to blocks of tokens that were compressed to one key and one value each, and what it says of their weight.

A compressed block is `length` tokens long, and one begins every `stride` tokens. Letters: b batch, n queries after
`past` tokens, h heads, g heads that have keys of their own, m compressed blocks, k width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hybridlab.ops.attention.block_choice import best_blocks
from hybridlab.ops.attention.fused_attention import fused_attention
from hybridlab.ops.precision import accumulation_dtype, autocast_off

# Queries are taken in a few pieces, so that not all their scores are in memory at once, nor made where none is seen: in
# pieces of at least so many, and where these are more, of at most so many scores (256 MiB in float32).
PIECES, SHORTEST, MOST = 4, 2048, 2**26


def dense_compressed_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g m k"],
    v: Float[Tensor, "b g m k"],
    past: int,
    length: int,
    stride: int,
) -> tuple[Float[Tensor, "b h n k"], Float[Tensor, "b h n m"]]:
    """Return the attention of each query to the compressed blocks that end at it or before, and its weights.

    A query that no block ends before gets zeros. The obvious form, O(n·m) in memory.
    """
    with autocast_off(v):
        dtype, sharing = accumulation_dtype(v), q.shape[1] // k.shape[1]
        q, k, v = q.to(dtype), *(x.to(dtype).repeat_interleave(sharing, dim=1) for x in (k, v))
        finished = _finished(q.shape[2], k.shape[2], past, length, stride, q.device)
        scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~finished, -torch.inf)
        # A row of nothing but -inf has no softmax.
        none = ~finished.any(-1, keepdim=True)
        weights = scores.masked_fill(none, 0).softmax(-1).masked_fill(none, 0)
        return weights @ v, weights


def compressed_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g m k"],
    v: Float[Tensor, "b g m k"],
    past: int,
    length: int,
    stride: int,
) -> Float[Tensor, "b h n k"]:
    """Give the first result of `dense_compressed_attention`, without its weights in memory."""
    with autocast_off(v):
        # Compressed blocks are few: to repeat them costs less than a mask for each group of heads.
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        outputs = []
        for piece in q.split(_piece_length(q, k.shape[2]), dim=2):
            n = piece.shape[2]
            m = _num_finished(past + n, length, stride)
            if m == 0:
                outputs.append(torch.zeros_like(piece))
            else:
                finished = _finished(n, m, past, length, stride, q.device)
                none = ~finished[:, :1]  # the first block is the first to end
                mask = torch.cat([torch.ones_like(none), finished[:, 1:]], dim=1)
                o = fused_attention(piece, k[:, :, :m], v[:, :, :m], mask)
                outputs.append(o.masked_fill(none, 0))
            past += n
        return torch.cat(outputs, dim=2)


def choice_by_importance(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g m k"],
    past: int,
    length: int,
    stride: int,
    block: int,
    local: int,
    count: int,
) -> Int[Tensor, "b g n count"]:
    """Choose blocks of keys by the weights of the compressed ones: one choice for all heads that share keys.

    The importance of a block is the weight of each compressed block, summed over the heads of the group, times the
    strides that both have in common (NSA, 2502.11089, equations 8 to 10). The first block and the `local` latest, which
    a query sees anyway, are left out; -1 where fewer blocks than `count` remain.
    """
    with torch.no_grad(), autocast_off(q):
        dtype = accumulation_dtype(q)
        pieces = q.split(_piece_length(q, k.shape[2]), dim=2)
        k = k.to(dtype)[:, :, None]
        choices = []
        for piece in pieces:
            piece = piece.unflatten(1, (k.shape[1], -1))
            n = piece.shape[3]
            m, blocks = _num_finished(past + n, length, stride), (past + n - 1) // block + 1
            finished = _finished(n, m, past, length, stride, q.device)
            scores = (piece.to(dtype) @ k[..., :m, :].mT * q.shape[-1] ** -0.5).masked_fill(~finished, -torch.inf)
            # Those that have no finished block have none to choose either.
            weights = scores.softmax(-1).sum(2)
            importance = weights @ common_strides(m, blocks, length, stride, block, q.device).to(dtype)
            own = torch.arange(past, past + n, device=q.device)[:, None] // block
            candidates = torch.arange(blocks, device=q.device)
            choices.append(best_blocks(importance, (candidates > 0) & (candidates <= own - local), count))
            past += n
        return torch.cat(choices, dim=2)


def common_strides(
    m: int, blocks: int, length: int, stride: int, block: int, device: torch.device | None = None
) -> Int[Tensor, "m blocks"]:
    """Return how many strides each compressed block has in common with each block of keys."""
    starts = torch.arange(m, device=device)[:, None] * stride
    edges = torch.arange(blocks, device=device) * block
    common = torch.minimum(starts + length, edges + block) - torch.maximum(starts, edges)
    return common.clamp(min=0) // stride


def _piece_length(q: Float[Tensor, "b h n k"], m: int) -> int:
    b, h, n, _ = q.shape
    return max(min(-(-n // PIECES), MOST // max(b * h * m, 1)), SHORTEST)


def _num_finished(tokens: int, length: int, stride: int) -> int:
    return max((tokens - length) // stride + 1, 0)


def _finished(n: int, m: int, past: int, length: int, stride: int, device: torch.device) -> Bool[Tensor, "n m"]:
    """Say which compressed blocks end at a query or before it."""
    ends = torch.arange(m, device=device) * stride + length - 1
    return ends <= torch.arange(past, past + n, device=device)[:, None]
