"""Part of a softmax: attention to some of the keys, kept so that parts can be put together."""

import torch
from jaxtyping import Bool
from torch import Tensor

from hybridlab.ops.precision import accumulation_dtype

# Σ exp(score - top) v, Σ exp(score - top), and top, the greatest score; the last two have a width of 1.
Part = tuple[Tensor, Tensor, Tensor]


def softmax_part(q: Tensor, k: Tensor, v: Tensor, hidden: Bool[Tensor, "*"] | None = None) -> Part:
    """Attend from q (already scaled) to k; a query may see nothing."""
    # In place, because the scores are the largest tensors of the ops.
    scores = (q @ k.mT).to(accumulation_dtype(v))
    if hidden is not None:
        scores.masked_fill_(hidden, -torch.inf)
    # The greatest score falls out of the result: it needs no gradient. It is finite even where nothing is seen.
    top = scores.detach().amax(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
    weights = scores.sub_(top).exp_()
    return weights.to(v.dtype) @ v, weights.sum(-1, keepdim=True), top
