"""Part of a softmax: attention to some of the keys, in a form that can be merged with other
parts."""

import torch
from jaxtyping import Bool
from torch import Tensor

from hybridlab.ops.precision import accumulation_dtype

# Σ exp(score - top) v, Σ exp(score - top), and top, the greatest score; the last two have width 1.
Part = tuple[Tensor, Tensor, Tensor]


def softmax_part(q: Tensor, k: Tensor, v: Tensor, hidden: Bool[Tensor, "*"] | None = None) -> Part:
    """Attend from q, which is already scaled, to k; queries without a visible key are allowed."""
    # In place, because the scores are the largest tensors here.
    scores = (q @ k.mT).to(accumulation_dtype(v))
    if hidden is not None:
        scores.masked_fill_(hidden, -torch.inf)
    # The greatest score cancels in the result: it needs no gradient. It is finite even if no key is
    # visible.
    top = scores.detach().amax(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
    weights = scores.sub_(top).exp_()
    return weights.to(v.dtype) @ v, weights.sum(-1, keepdim=True), top
