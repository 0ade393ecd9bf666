"""Normalised linear attention on the logarithms of positive features.

Features such as exp(w·x - ‖x‖²/2) have no common scale, so a scale is divided out before the
exponential. Each query uses its own largest feature, which cancels between numerator and
normaliser. The keys of a sum must share one scale, which must not look ahead: it is the running
maximum of the features. Whenever it grows, the sums so far shrink, as under a decay. (Ports of
FAVOR+ use the largest feature of the whole sequence, which leaks the future into every token.)

Letters: b batch, h heads, t time, f features, v width of the values.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.linear.normalised_attention import (
    EPSILON,
    bidirectional_normalised_attention,
    chunked_normalised_attention,
)
from hybridlab.ops.precision import accumulation_dtype, autocast_off

# Keeps normalisers away from 0, for features with a maximum of 1 (FAVOR+ adds 1e-4 to 1e-6).
FEATURE_FLOOR = 1e-6
LOG_ZERO = -104.0  # its exponential is 0 in float32


def dense_log_feature_attention(
    log_q: Float[Tensor, "b h t f"],
    log_k: Float[Tensor, "b h t f"],
    v: Float[Tensor, "b h t v"],
    *,
    causal: bool,
) -> Float[Tensor, "b h t v"]:
    """Compute the definition: weight the values by a t x t matrix with normalised rows."""
    with autocast_off(v):
        log_q, log_k, values = (x.to(accumulation_dtype(v)) for x in (log_q, log_k, v))
        token_max = log_k.amax(-1)
        key_max = token_max.cummax(-1).values if causal else token_max.amax(-1, keepdim=True).expand_as(token_max)
        queries = (log_q - log_q.amax(-1, keepdim=True)).exp() + FEATURE_FLOOR
        keys = (log_k - key_max[..., None]).exp() + FEATURE_FLOOR
        weights = queries @ keys.mT
        if causal:
            future = torch.ones_like(weights, dtype=torch.bool).triu(1)
            log_rescaling = key_max[..., None, :] - key_max[..., :, None]  # of key j for query i
            weights = weights * log_rescaling.masked_fill(future, -torch.inf).exp()
        return (weights / (weights.sum(-1, keepdim=True) + EPSILON) @ values).to(v.dtype)


def chunked_log_feature_attention(
    log_q: Float[Tensor, "b h t f"],
    log_k: Float[Tensor, "b h t f"],
    v: Float[Tensor, "b h t v"],
    state: tuple[Float[Tensor, "b h f v+1"], Float[Tensor, "b h"]] | None = None,
    chunk: int = 64,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h f v+1"], Float[Tensor, "b h"]]:
    """Compute the causal form in O(t·chunk).

    Return the outputs, the final sums and the logarithm of their scale. `state` holds the sums of
    the past and the logarithm of their scale.
    """
    with autocast_off(v):
        sums, past_max = (None, torch.full_like(log_k[:, :, 0, 0], -torch.inf)) if state is None else state
        running_max = torch.cat([past_max[..., None].to(log_k.dtype), log_k.amax(-1)], dim=-1).cummax(-1).values
        # Before the first token, the sums and their scale are 0: clamping keeps the log decay
        # finite.
        log_decay = (running_max[..., :-1] - running_max[..., 1:]).clamp(min=LOG_ZERO)
        q = _features(log_q, log_q.amax(-1, keepdim=True), v)
        k = _features(log_k, running_max[..., 1:, None], v)
        o, sums = chunked_normalised_attention(q, k, v, log_decay, sums, chunk)
        return o, sums, running_max[..., -1]


def bidirectional_log_feature_attention(
    log_q: Float[Tensor, "b h t f"], log_k: Float[Tensor, "b h t f"], v: Float[Tensor, "b h t v"]
) -> Float[Tensor, "b h t v"]:
    """Compute the bidirectional form in O(t).

    The keys' scale is the largest feature of the sequence.
    """
    with autocast_off(v):
        q = _features(log_q, log_q.amax(-1, keepdim=True), v)
        k = _features(log_k, log_k.amax((-2, -1), keepdim=True), v)
        return bidirectional_normalised_attention(q, k, v)


def _features(log_features: Tensor, log_scale: Tensor, v: Tensor) -> Tensor:
    return ((log_features - log_scale).exp() + FEATURE_FLOOR).to(v.dtype)
