"""Attention to blocks of tokens that are compressed to one key and one value each, and the choice
of blocks by its weights.

A compressed block covers `length` tokens, and one begins every `stride` tokens. Letters: b batch, n
queries after `past` tokens, h heads, g key heads, m compressed blocks, k width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hybridlab.ops.attention.block_choice import top_blocks
from hybridlab.ops.attention.fused_attention import fused_attention
from hybridlab.ops.precision import accumulation_dtype, autocast_off

# Queries are processed in a few chunks, so that not all scores are in memory at once, and none are
# computed for unfinished blocks: QUERY_CHUNKS chunks of at least MIN_CHUNK queries, smaller ones if
# a chunk would exceed MAX_SCORES scores (256 MiB in float32).
QUERY_CHUNKS, MIN_CHUNK, MAX_SCORES = 4, 2048, 2**26


def dense_compressed_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g m k"],
    v: Float[Tensor, "b g m k"],
    past: int,
    length: int,
    stride: int,
) -> tuple[Float[Tensor, "b h n k"], Float[Tensor, "b h n m"]]:
    """Return the attention of each query to the compressed blocks that end at or before it, and its
    weights.

    A query without such a block gets zeros. The obvious form, O(n·m) memory.
    """
    with autocast_off(v):
        dtype, sharing = accumulation_dtype(v), q.shape[1] // k.shape[1]
        q, k, v = q.to(dtype), *(x.to(dtype).repeat_interleave(sharing, dim=1) for x in (k, v))
        finished = _finished(q.shape[2], k.shape[2], past, length, stride, q.device)
        scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~finished, -torch.inf)
        # The softmax of a row of -inf alone is undefined.
        no_blocks = ~finished.any(-1, keepdim=True)
        weights = scores.masked_fill(no_blocks, 0).softmax(-1).masked_fill(no_blocks, 0)
        return weights @ v, weights


def compressed_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g m k"],
    v: Float[Tensor, "b g m k"],
    past: int,
    length: int,
    stride: int,
) -> Float[Tensor, "b h n k"]:
    """Compute the first result of `dense_compressed_attention` without keeping the weights in
    memory."""
    with autocast_off(v):
        # Compressed blocks are few: repeating them costs less than a mask for each group of heads.
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        outputs = []
        for chunk in q.split(_chunk_length(q, k.shape[2]), dim=2):
            n = chunk.shape[2]
            m = _num_finished(past + n, length, stride)
            if m == 0:
                outputs.append(torch.zeros_like(chunk))
            else:
                finished = _finished(n, m, past, length, stride, q.device)
                no_blocks = ~finished[:, :1]  # the first block is the first to end
                mask = torch.cat([torch.ones_like(no_blocks), finished[:, 1:]], dim=1)
                o = fused_attention(chunk, k[:, :, :m], v[:, :, :m], mask)
                outputs.append(o.masked_fill(no_blocks, 0))
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
    """Choose blocks of keys by the weights of compressed blocks: one choice for all heads that
    share keys.

    The importance of a block is the sum over compressed blocks of their weight, summed over the
    heads of the group, times the number of strides that both have in common (NSA, 2502.11089,
    equations 8 to 10). The first block and the `local` latest ones, which a query sees anyway, are
    excluded; -1 fills up the choice if fewer than `count` blocks remain.
    """
    with torch.no_grad(), autocast_off(q):
        dtype = accumulation_dtype(q)
        chunks = q.split(_chunk_length(q, k.shape[2]), dim=2)
        k = k.to(dtype)[:, :, None]
        choices = []
        for chunk in chunks:
            chunk = chunk.unflatten(1, (k.shape[1], -1))
            n = chunk.shape[3]
            m, blocks = _num_finished(past + n, length, stride), (past + n - 1) // block + 1
            finished = _finished(n, m, past, length, stride, q.device)
            scores = (chunk.to(dtype) @ k[..., :m, :].mT * q.shape[-1] ** -0.5).masked_fill(~finished, -torch.inf)
            # Queries without a finished block have no block to choose either.
            weights = scores.softmax(-1).sum(2)
            importance = weights @ common_strides(m, blocks, length, stride, block, q.device).to(dtype)
            own = torch.arange(past, past + n, device=q.device)[:, None] // block
            candidates = torch.arange(blocks, device=q.device)
            choices.append(top_blocks(importance, (candidates > 0) & (candidates <= own - local), count))
            past += n
        return torch.cat(choices, dim=2)


def common_strides(
    m: int, blocks: int, length: int, stride: int, block: int, device: torch.device | None = None
) -> Int[Tensor, "m blocks"]:
    """Return the number of strides that each compressed block shares with each block of keys."""
    starts = torch.arange(m, device=device)[:, None] * stride
    edges = torch.arange(blocks, device=device) * block
    common = torch.minimum(starts + length, edges + block) - torch.maximum(starts, edges)
    return common.clamp(min=0) // stride


def _chunk_length(q: Float[Tensor, "b h n k"], m: int) -> int:
    b, h, n, _ = q.shape
    return max(min(-(-n // QUERY_CHUNKS), MAX_SCORES // max(b * h * m, 1)), MIN_CHUNK)


def _num_finished(tokens: int, length: int, stride: int) -> int:
    return max((tokens - length) // stride + 1, 0)


def _finished(n: int, m: int, past: int, length: int, stride: int, device: torch.device) -> Bool[Tensor, "n m"]:
    """Return which compressed blocks end at or before each query."""
    ends = torch.arange(m, device=device) * stride + length - 1
    return ends <= torch.arange(past, past + n, device=device)[:, None]
