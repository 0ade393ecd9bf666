"""Linear attention with weights that sum to 1, whose positive features are given by their logarithms.

Features such as exp(w·x - ‖x‖²/2) have no common scale: it is taken out before the exponential. A query's own largest
feature cancels between numerator and normaliser. A scale of the keys must be the same for all keys of a sum, and may not
look ahead: it is the largest feature so far, and whenever it grows, the sums that exist shrink, as under a decay. (With
the largest feature of the whole row instead, as in ports of FAVOR+, the future leaks into every token.)

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

# Added to features of which the largest is 1, so that no normaliser is far below it (FAVOR+ adds 1e-4 to 1e-6).
FLOOR = 1e-6
# The logarithm of nothing at all in float32.
NOTHING = -104.0


def dense_log_feature_attention(
    log_q: Float[Tensor, "b h t f"],
    log_k: Float[Tensor, "b h t f"],
    v: Float[Tensor, "b h t v"],
    *,
    causal: bool,
) -> Float[Tensor, "b h t v"]:
    """Weigh the values by a matrix of t times t whose rows are divided by their sums: the definition of the op."""
    with autocast_off(v):
        log_q, log_k, values = (x.to(accumulation_dtype(v)) for x in (log_q, log_k, v))
        largest = log_k.amax(-1)
        peaks = largest.cummax(-1).values if causal else largest.amax(-1, keepdim=True).expand_as(largest)
        queries = (log_q - log_q.amax(-1, keepdim=True)).exp() + FLOOR
        keys = (log_k - peaks[..., None]).exp() + FLOOR
        weights = queries @ keys.mT
        if causal:
            later = torch.ones_like(weights, dtype=torch.bool).triu(1)
            shrunk = peaks[..., None, :] - peaks[..., :, None]  # of key j as query i sees it
            weights = weights * shrunk.masked_fill(later, -torch.inf).exp()
        return (weights / (weights.sum(-1, keepdim=True) + EPSILON) @ values).to(v.dtype)


def chunked_log_feature_attention(
    log_q: Float[Tensor, "b h t f"],
    log_k: Float[Tensor, "b h t f"],
    v: Float[Tensor, "b h t v"],
    state: tuple[Float[Tensor, "b h f v+1"], Float[Tensor, "b h"]] | None = None,
    chunk: int = 64,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h f v+1"], Float[Tensor, "b h"]]:
    """Give the causal form in O(t·chunk), after a past that left `state`: its sums, and the logarithm of their scale.

    Return also the sums and the logarithm of their scale after it. Without a past that is -inf.
    """
    with autocast_off(v):
        sums, peak = (None, torch.full_like(log_k[:, :, 0, 0], -torch.inf)) if state is None else state
        peaks = torch.cat([peak[..., None].to(log_k.dtype), log_k.amax(-1)], dim=-1).cummax(-1).values
        # The first token meets sums of zero: how fast they shrink is all the same, so long as it is a number.
        log_decay = (peaks[..., :-1] - peaks[..., 1:]).clamp(min=NOTHING)
        q = _features(log_q, log_q.amax(-1, keepdim=True), v)
        k = _features(log_k, peaks[..., 1:, None], v)
        o, sums = chunked_normalised_attention(q, k, v, log_decay, sums, chunk)
        return o, sums, peaks[..., -1]


def bidirectional_log_feature_attention(
    log_q: Float[Tensor, "b h t f"], log_k: Float[Tensor, "b h t f"], v: Float[Tensor, "b h t v"]
) -> Float[Tensor, "b h t v"]:
    """Give the bidirectional form in O(t): nothing is ahead, and the scale is the row's largest feature."""
    with autocast_off(v):
        q = _features(log_q, log_q.amax(-1, keepdim=True), v)
        k = _features(log_k, log_k.amax((-2, -1), keepdim=True), v)
        return bidirectional_normalised_attention(q, k, v)


def _features(logarithms: Tensor, scale: Tensor, v: Tensor) -> Tensor:
    return ((logarithms - scale).exp() + FLOOR).to(v.dtype)
