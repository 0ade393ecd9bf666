"""Normalised linear attention: o_t = Σ_j (q_t·k_j) v_j / Σ_j (q_t·k_j), for non-negative features.

The normaliser is computed as one more value channel, which is 1 for every token.
Letters: b batch, h heads, t time, k and v widths.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.linear.bidirectional_linear_attention import bidirectional_linear_attention
from hybridlab.ops.linear.linear_attention import chunked_linear_attention
from hybridlab.ops.precision import autocast_off

EPSILON = 1e-10  # far below any relevant sum of features: prevents division by 0
# Elements, 16 bytes in half precision: a GPU's matrix units are fastest on rows of such multiples.
ALIGNMENT = 8

Sums = Float[Tensor, "b h k v+1"]


def dense_normalised_attention(
    q: Float[Tensor, "b h t k"], k: Float[Tensor, "b h t k"], v: Float[Tensor, "b h t v"], *, causal: bool
) -> Float[Tensor, "b h t v"]:
    """Compute the definition: weight the values by a t x t matrix with normalised rows."""
    with autocast_off(v):
        weights = q @ k.mT
        weights = weights.tril() if causal else weights
        return weights / (weights.sum(-1, keepdim=True) + EPSILON) @ v


def chunked_normalised_attention(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    log_decay: Float[Tensor, "b h t"] | None = None,
    state: Sums | None = None,
    chunk: int | None = None,
) -> tuple[Float[Tensor, "b h t v"], Sums]:
    """Compute the causal form in O(t·chunk); return the outputs and the final sums Σ k [v, 1]ᵀ.

    `state` holds the sums of the past.
    """
    return with_normaliser(lambda v, sums: chunked_linear_attention(q, k, v, log_decay, sums, chunk), v, state)


def bidirectional_normalised_attention(
    q: Float[Tensor, "b h t k"], k: Float[Tensor, "b h t k"], v: Float[Tensor, "b h t v"]
) -> Float[Tensor, "b h t v"]:
    """Compute the bidirectional form in O(t)."""
    with autocast_off(v):
        return _normalise(bidirectional_linear_attention(q, k, _append_ones(v)), v.shape[-1])


def with_normaliser(
    attend: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]], v: Float[Tensor, "b h t v"], sums: Sums | None
) -> tuple[Float[Tensor, "b h t v"], Sums]:
    """Call a linear attention with a further value channel of ones, and divide by its output.

    `attend` takes values and sums, and returns outputs and new sums.
    """
    with autocast_off(v):
        width = v.shape[-1]
        o, sums = attend(_append_ones(v), None if sums is None else F.pad(sums, (0, ALIGNMENT - 1)))
        return _normalise(o, width), sums[..., : width + 1]


def _append_ones(v: Tensor) -> Tensor:
    ones = torch.ones_like(v[..., :1])
    return torch.cat([v, F.pad(ones, (0, ALIGNMENT - 1))], dim=-1)


def _normalise(o: Tensor, width: int) -> Tensor:
    return o[..., :width] / (o[..., width : width + 1] + EPSILON)
