"""The difference of two softmax attentions to the same values.

Letters: b batch, h heads, n queries at the last n of t key positions, k width of queries and keys,
v width of values.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.attention.fused_attention import fused_attention

Pair = Sequence[Tensor]


def dense_differential_attention(
    q: Pair, k: Pair, v: Float[Tensor, "b h t v"], weight: Float[Tensor, ""], *, causal: bool = True
) -> Float[Tensor, "b h n v"]:
    """Attend with softmax(q₁k₁ᵀ/√k) - weight · softmax(q₂k₂ᵀ/√k), written out: the obvious form,
    O(n·t) memory."""
    n, t = q[0].shape[2], v.shape[2]
    ahead = torch.ones(n, t, dtype=torch.bool, device=v.device).triu(t - n + 1) & causal
    first, second = (
        (a @ b.mT * a.shape[-1] ** -0.5).masked_fill(ahead, -torch.inf).softmax(-1) for a, b in zip(q, k, strict=True)
    )
    return (first - weight * second) @ v


def differential_attention(
    q: Pair, k: Pair, v: Float[Tensor, "b h t v"], weight: Float[Tensor, ""], *, causal: bool = True
) -> Float[Tensor, "b h n v"]:
    """Compute `dense_differential_attention` as the difference of two attentions that keep no (n,
    t) scores."""
    (n, width), t = q[0].shape[2:], v.shape[2]
    continues = causal and 1 < n < t
    mask = torch.ones(n, t, dtype=torch.bool, device=v.device).tril(t - n) if continues else None
    # Fused attention needs equal widths; appended zeros add nothing to a score.
    padded = [[F.pad(x, (0, v.shape[-1] - width)) for x in pair] for pair in zip(q, k, strict=True)]
    first, second = (fused_attention(a, b, v, mask, causal=causal and n == t, scale=width**-0.5) for a, b in padded)
    return first - weight.to(second.dtype) * second
