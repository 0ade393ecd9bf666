"""Attention with the second-order Taylor polynomial of the exponential, normalised.

The weights are 1 + s + s²/2 with s = q·k / √d.
Letters: b batch, h heads, t time, d width of queries and keys, f features, v width of the values.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.kernels.dispatch import can_use_taylor_kernel
from hybridlab.ops.kernels.launch import compiled_at_once
from hybridlab.ops.linear.chunks import split_chunks
from hybridlab.ops.linear.normalised_attention import (
    ALIGNMENT,
    EPSILON,
    bidirectional_normalised_attention,
    with_normaliser,
)
from hybridlab.ops.linear.prefix_sum import decayed_prefix_sum
from hybridlab.ops.precision import accumulation_dtype, autocast_off

MAX_KERNEL_LENGTH = 2048  # tokens: up to here, computing all pairs costs a GPU less than computing features


def dense_taylor_attention(
    q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], v: Float[Tensor, "b h t v"], *, causal: bool
) -> Float[Tensor, "b h t v"]:
    """Compute the definition: weight the values by a t x t matrix with normalised rows."""
    with autocast_off(v):
        weights = _polynomial(q @ k.mT / q.shape[-1] ** 0.5)
        weights = weights.tril() if causal else weights
        return weights / (weights.sum(-1, keepdim=True) + EPSILON) @ v


def chunked_taylor_attention(
    q: Float[Tensor, "b h t d"],
    k: Float[Tensor, "b h t d"],
    v: Float[Tensor, "b h t v"],
    state: Float[Tensor, "b h f v+1"] | None = None,
    chunk: int = 128,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h f v+1"]]:
    """Compute the causal form in O(t·chunk); return the outputs and the final sums Σ φ(k) [v, 1]ᵀ.

    `state` holds the sums of the past. Within a chunk, the polynomial is computed from q·k,
    products of width d; the features, about d²/2 of them, only carry the past into the chunk. GPU
    kernels compute all pairs, for sequences that are not too long. Matrix products are in the dtype
    of the inputs, the sums in at least float32.
    """
    if v.shape[2] <= MAX_KERNEL_LENGTH and can_use_taylor_kernel(v, q.shape[-1], v.shape[-1]):
        with autocast_off(v):
            return _run_kernels(q, k, v, state)
    return with_normaliser(lambda v, sums: _attend_in_chunks(q, k, v, sums, chunk), v, state)


def bidirectional_taylor_attention(
    q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], v: Float[Tensor, "b h t v"]
) -> Float[Tensor, "b h t v"]:
    """Compute the bidirectional form in O(t)."""
    with autocast_off(v):
        return bidirectional_normalised_attention(taylor_features(q), taylor_features(k), v)


def taylor_features(x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b f"]:
    """Return φ(x) = [1, y, upper triangle of y yᵀ] with y = x / d^¼ (Based, 2402.18668).

    Then φ(q)·φ(k) = 1 + s + s²/2 with s = q·k / √d. Each off-diagonal product appears once, times
    √2, instead of twice. That makes (d + 1)(d + 2) / 2 features instead of 1 + d + d²: 153 instead
    of 273 for d = 16. They are padded with zeros to a multiple of 8.
    """
    d = x.shape[-1]
    # Each feature is the product of two entries of [1, y]. Matrix products select the entries: the
    # gradient of indexing would accumulate one element at a time.
    first, second = torch.triu_indices(d + 1, d + 1, device=x.device)
    selectors = torch.eye(d + 1, dtype=x.dtype, device=x.device)
    # The scale is 1 for 1·1 and 1·y, √2 / √2 = 1 for products of two different entries, and 1 / √2
    # for squares.
    is_square = (first == second) & (first > 0)
    weight_1, weight_2 = selectors[first], selectors[second]
    weight_1 = torch.where(is_square[:, None], weight_1 * 0.5**0.5, weight_1)
    weight_1, weight_2 = (F.pad(w, (0, 0, 0, -len(first) % ALIGNMENT)) for w in (weight_1, weight_2))
    y = x * d**-0.25
    # Contiguous, because a GPU's matrix units need aligned rows.
    (bias_1, weight_1), (bias_2, weight_2) = ((w[:, 0], w[:, 1:].contiguous()) for w in (weight_1, weight_2))
    return F.linear(y, weight_1, bias_1) * F.linear(y, weight_2, bias_2)


def num_taylor_features(d: int) -> int:
    """Return the number of features that `taylor_features` computes for width d."""
    features = (d + 1) * (d + 2) // 2
    return features + -features % ALIGNMENT


def _attend_in_chunks(
    q: Tensor, k: Tensor, v: Tensor, initial_state: Tensor | None, chunk: int
) -> tuple[Tensor, Tensor]:
    (b, h, t, width), chunk = v.shape, min(chunk, v.shape[2])
    # The zero keys that pad the last chunk have weight 1, but their values and their normaliser
    # channel are 0.
    q, k, v = (split_chunks(x, chunk) for x in (q, k, v))
    intra_chunk = _polynomial((q * q.shape[-1] ** -0.5) @ k.mT).tril() @ v
    increments = (taylor_features(k).mT @ v).flatten(-2).to(accumulation_dtype(v))
    chunk_starts, final_sums = decayed_prefix_sum(
        increments, torch.zeros_like(increments[..., 0]), None if initial_state is None else initial_state.flatten(-2)
    )
    o = intra_chunk + taylor_features(q) @ chunk_starts.unflatten(-1, (-1, width)).to(v.dtype)
    return o.reshape(b, h, -1, width)[:, :, :t], final_sums.unflatten(-1, (-1, width))


@compiled_at_once
def _run_kernels(q: Tensor, k: Tensor, v: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    from hybridlab.ops.kernels.taylor_attention import attend

    q, k = q.to(v.dtype), k.to(v.dtype)
    o, normaliser = attend(*(x.flatten(0, 1) for x in (q * q.shape[-1] ** -0.5, k, v)))
    o, normaliser = o.view_as(v), normaliser.view(v.shape[:3])[..., None]
    features = taylor_features(k).mT
    final_sums = torch.cat([features @ v, features.sum(-1, keepdim=True)], dim=-1).float()
    if state is not None:
        past_part = taylor_features(q) @ state.to(v.dtype)
        o, normaliser, final_sums = o + past_part[..., :-1], normaliser + past_part[..., -1:], final_sums + state
    return (o / (normaliser + EPSILON)).to(v.dtype), final_sums


def _polynomial(scores: Tensor) -> Tensor:
    return 1 + scores * (1 + 0.5 * scores)
