"""Linear attention whose weights sum to 1: o_t = Σ_j (q_t·k_j) v_j / Σ_j (q_t·k_j), for features that are not negative.

The normaliser is one more value, 1 for every token. Letters: b batch, h heads, t time, k and v widths.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.linear.bidirectional_linear_attention import bidirectional_linear_attention
from hybridlab.ops.linear.linear_attention import chunked_linear_attention
from hybridlab.ops.precision import autocast_off

# Far below any sum of features that matters: it keeps a sum that is exactly zero from being divided by.
EPSILON = 1e-10
# Rows of a whole number of 16 bytes, in half precision too: a GPU's matrix units take no others at full speed.
ALIGNMENT = 8

Sums = Float[Tensor, "b h k v+1"]


def dense_normalised_attention(
    q: Float[Tensor, "b h t k"], k: Float[Tensor, "b h t k"], v: Float[Tensor, "b h t v"], *, causal: bool
) -> Float[Tensor, "b h t v"]:
    """Weigh the values by a matrix of t times t whose rows are divided by their sums: the definition of the op."""
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
    """Give the causal form in O(t·chunk), after a past whose sums Σ k [v, 1]ᵀ are `state`; return also the sums after it."""
    return with_normaliser(lambda v, sums: chunked_linear_attention(q, k, v, log_decay, sums, chunk), v, state)


def bidirectional_normalised_attention(
    q: Float[Tensor, "b h t k"], k: Float[Tensor, "b h t k"], v: Float[Tensor, "b h t v"]
) -> Float[Tensor, "b h t v"]:
    """Give the bidirectional form in O(t)."""
    with autocast_off(v):
        return _divided(bidirectional_linear_attention(q, k, _with_ones(v)), v.shape[-1])


def with_normaliser(
    attend: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]], v: Float[Tensor, "b h t v"], sums: Sums | None
) -> tuple[Float[Tensor, "b h t v"], Sums]:
    """Call a linear attention, a function of values and sums, with one more value; divide its outputs by that."""
    with autocast_off(v):
        width = v.shape[-1]
        o, sums = attend(_with_ones(v), None if sums is None else F.pad(sums, (0, ALIGNMENT - 1)))
        return _divided(o, width), sums[..., : width + 1]


def _with_ones(v: Tensor) -> Tensor:
    ones = torch.ones_like(v[..., :1])
    return torch.cat([v, F.pad(ones, (0, ALIGNMENT - 1))], dim=-1)


def _divided(o: Tensor, width: int) -> Tensor:
    return o[..., :width] / (o[..., width : width + 1] + EPSILON)
