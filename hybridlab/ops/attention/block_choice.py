"""The choice of past blocks by each query.

Letters: b batch, n queries after `past` tokens, h heads, g key heads, m blocks, k width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.precision import accumulation_dtype, autocast_off

# Queries per chunk: only the scores of one chunk are in memory at a time.
QUERY_CHUNK = 4096
# Up to this many blocks are found faster on a GPU by repeated search than by sorting.
MAX_SEARCHED = 4


def dense_choice_by_mean(
    q: Float[Tensor, "b h n k"], means: Float[Tensor, "b g m k"], past: int, block: int, count: int
) -> Int[Tensor, "b h n count"]:
    """Choose the `count` blocks before a query's own whose mean keys have the greatest products
    with the query.

    The gate of MoBA (2502.13189, equations 4 to 6). `means` are the mean keys of all finished
    blocks; -1 marks a missing choice.
    """
    dtype, n = accumulation_dtype(q), q.shape[2]
    means = means.to(dtype).repeat_interleave(q.shape[1] // means.shape[1], dim=1)
    own = torch.arange(past, past + n, device=q.device)[:, None] // block
    allowed = torch.arange(means.shape[2], device=q.device) < own
    return top_blocks(q.detach().to(dtype) @ means.detach().mT, allowed, count)


def choice_by_mean(
    q: Float[Tensor, "b h n k"], means: Float[Tensor, "b g m k"], past: int, block: int, count: int
) -> Int[Tensor, "b h n count"]:
    """Compute `dense_choice_by_mean` in chunks of queries: only one chunk's scores, up to its last
    block, are in memory."""
    with torch.no_grad(), autocast_off(q):
        dtype = accumulation_dtype(q)
        q, means = q.unflatten(1, (means.shape[1], -1)), means.to(dtype).mT
        choices = []
        for chunk in q.split(QUERY_CHUNK, dim=3):
            n = chunk.shape[3]
            own = torch.arange(past, past + n, device=q.device)[:, None] // block
            earlier = (past + n - 1) // block
            scores = (chunk.to(dtype).flatten(2, 3) @ means[..., :earlier]).unflatten(2, (-1, n))
            choices.append(top_blocks(scores, torch.arange(earlier, device=q.device) < own, count))
            past += n
        return torch.cat(choices, dim=3).flatten(1, 2)


def top_blocks(scores: Float[Tensor, "*b n m"], allowed: Bool[Tensor, "n m"], count: int) -> Int[Tensor, "*b n count"]:
    """Return the `count` allowed blocks with the greatest scores, and -1 if there are fewer.

    Beyond the allowed blocks `topk` returns others, future ones among them; these must not be
    returned.
    """
    kept = min(count, scores.shape[-1])
    scores = scores.masked_fill(~allowed, -torch.inf)
    best, chosen = (
        top_by_search(scores, kept) if scores.is_cuda and 0 < kept <= MAX_SEARCHED else scores.topk(kept, dim=-1)
    )
    return F.pad(chosen.masked_fill(best == -torch.inf, -1), (0, count - kept), value=-1)


def top_by_search(
    scores: Float[Tensor, "*b m"], count: int
) -> tuple[Float[Tensor, "*b count"], Int[Tensor, "*b count"]]:
    """Return the greatest scores and their indices like `topk`, by repeated search with the found
    scores masked."""
    columns, found = torch.arange(scores.shape[-1], device=scores.device), [scores.max(-1, keepdim=True)]
    for _ in range(count - 1):
        scores = scores.masked_fill(columns == found[-1].indices, -torch.inf)
        found.append(scores.max(-1, keepdim=True))
    values, indices = zip(*found, strict=True)
    return torch.cat(values, dim=-1), torch.cat(indices, dim=-1)
