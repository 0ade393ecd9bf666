"""Which blocks of the past a query chooses.

Letters: b batch, n queries after `past` tokens, h heads, g heads that have keys of their own, m blocks, k width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.precision import accumulation_dtype, autocast_off

# Queries are taken in pieces, so that not all their scores are in memory at once.
PIECE = 4096
# Blocks that a GPU finds faster one by one than by sorting.
FEW = 4


def dense_choice_by_mean(
    q: Float[Tensor, "b h n k"], means: Float[Tensor, "b g m k"], past: int, block: int, count: int
) -> Int[Tensor, "b h n count"]:
    """Choose, among the blocks before a query's own, the `count` whose mean key has the greatest product with it.

    The gate of MoBA (2502.13189, equations 4 to 6). `means` are those of all finished blocks; -1: there is none left.
    """
    dtype, n = accumulation_dtype(q), q.shape[2]
    means = means.to(dtype).repeat_interleave(q.shape[1] // means.shape[1], dim=1)
    own = torch.arange(past, past + n, device=q.device)[:, None] // block
    allowed = torch.arange(means.shape[2], device=q.device) < own
    return best_blocks(q.detach().to(dtype) @ means.detach().mT, allowed, count)


def choice_by_mean(
    q: Float[Tensor, "b h n k"], means: Float[Tensor, "b g m k"], past: int, block: int, count: int
) -> Int[Tensor, "b h n count"]:
    """Give what `dense_choice_by_mean` gives; only a piece of the scores, up to its last block, is ever in memory."""
    with torch.no_grad(), autocast_off(q):
        dtype = accumulation_dtype(q)
        q, means = q.unflatten(1, (means.shape[1], -1)), means.to(dtype).mT
        choices = []
        for piece in q.split(PIECE, dim=3):
            n = piece.shape[3]
            own = torch.arange(past, past + n, device=q.device)[:, None] // block
            earlier = (past + n - 1) // block
            scores = (piece.to(dtype).flatten(2, 3) @ means[..., :earlier]).unflatten(2, (-1, n))
            choices.append(best_blocks(scores, torch.arange(earlier, device=q.device) < own, count))
            past += n
        return torch.cat(choices, dim=3).flatten(1, 2)


def best_blocks(scores: Float[Tensor, "*b n m"], allowed: Bool[Tensor, "n m"], count: int) -> Int[Tensor, "*b n count"]:
    """Return the `count` allowed blocks of the greatest scores, and -1 where there are fewer.

    What `topk` gives beyond the allowed ones are blocks too, of the future for one: they must not come through.
    """
    kept = min(count, scores.shape[-1])
    scores = scores.masked_fill(~allowed, -torch.inf)
    best, chosen = one_by_one(scores, kept) if scores.is_cuda and 0 < kept <= FEW else scores.topk(kept, dim=-1)
    return F.pad(chosen.masked_fill(best == -torch.inf, -1), (0, count - kept), value=-1)


def one_by_one(scores: Float[Tensor, "*b m"], count: int) -> tuple[Float[Tensor, "*b count"], Int[Tensor, "*b count"]]:
    """Return the greatest scores and where they are, as `topk` does: each is left out in the search for the next."""
    numbers, found = torch.arange(scores.shape[-1], device=scores.device), [scores.max(-1, keepdim=True)]
    for _ in range(count - 1):
        scores = scores.masked_fill(numbers == found[-1].indices, -torch.inf)
        found.append(scores.max(-1, keepdim=True))
    values, indices = zip(*found, strict=True)
    return torch.cat(values, dim=-1), torch.cat(indices, dim=-1)
