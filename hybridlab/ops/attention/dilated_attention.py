"""Softmax attention to a window with gaps: a token sees every `dilation`-th of the tokens near it.

Letters: b batch, h heads, g key heads, n queries at the last n of t key positions, k width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.attention.fused_attention import fused_attention
from hybridlab.ops.attention.sliding_attention import sliding_attention


def dense_dilated_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g t k"],
    v: Float[Tensor, "b g t k"],
    window: int,
    dilation: int,
    *,
    causal: bool = True,
    missing: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, "b h n k"]:
    """Attend under one (n, t) mask: query i is at key position t-n+i and sees every `dilation`-th
    key back from there.

    It sees `window` of them, and, if not `causal`, as many ahead. The first `missing` keys of a
    sequence are hidden. The obvious form, O(n·t).
    """
    keys = torch.arange(k.shape[2], device=q.device)
    visible = dilated_mask(keys[k.shape[2] - q.shape[2] :], keys, window, dilation, causal=causal)
    if missing is not None:
        visible = visible & (keys >= missing[:, None])[:, None, None]
    return fused_attention(q, k, v, visible)


def dilated_mask(
    queries: Int[Tensor, " n"], keys: Int[Tensor, " t"], window: int, dilation: int, *, causal: bool = True
) -> Bool[Tensor, "n t"]:
    """Return which keys each query sees, given the positions of both."""
    distance = queries[:, None] - keys
    visible = (distance.abs() < dilation * window) & (distance % dilation == 0)
    return visible & (distance >= 0) if causal else visible


def dilated_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g t k"],
    v: Float[Tensor, "b g t k"],
    window: int,
    dilation: int,
    *,
    causal: bool = True,
    missing: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, "b h n k"]:
    """Compute `dense_dilated_attention` exactly in O(n·window); the past t-n must be a multiple of
    `dilation`.

    Tokens see only tokens whose positions leave the same remainder: this is sliding attention on
    `dilation` sequences.
    """
    if missing is not None:
        # How many of the first `missing` keys leave each remainder.
        remainders = torch.arange(dilation, device=q.device)
        missing = ((missing[:, None] - remainders + dilation - 1) // dilation).clamp(min=0).flatten()
    n = q.shape[2]
    q, k, v = (_split_by_remainder(x, dilation) for x in (q, k, v))
    if causal:
        # No token sees the padding.
        o = _attend_by_remainder(q, k, v, window, True, missing)
    else:
        # The sequences of the first n % dilation remainders are one token longer than the others.
        longer, length = n % dilation, n // dilation
        parts = []
        if longer:
            parts.append(_attend_by_remainder(q[:, :longer], k[:, :longer], v[:, :longer], window, False))
        if length:
            q, k, v = (x[:, longer:, :, :length] for x in (q, k, v))
            shorter = _attend_by_remainder(q, k, v, window, False)
            parts.append(F.pad(shorter, (0, 0, 0, 1)) if longer else shorter)
        o = torch.cat(parts, dim=1)
    return o.permute(0, 2, 3, 1, 4).flatten(2, 3)[:, :, :n]


def _attend_by_remainder(
    q: Float[Tensor, "b r h n k"],
    k: Float[Tensor, "b r g t k"],
    v: Float[Tensor, "b r g t k"],
    window: int,
    causal: bool,
    missing: Int[Tensor, " br"] | None = None,
) -> Float[Tensor, "b r h n k"]:
    q, k, v, shape = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), q.shape[:2]
    return sliding_attention(q, k, v, window, causal=causal, missing=missing).unflatten(0, shape)


def _split_by_remainder(x: Float[Tensor, "b h t k"], dilation: int) -> Float[Tensor, "b r h n k"]:
    """Split a sequence into one sequence per remainder."""
    missing = -x.shape[2] % dilation
    x = F.pad(x, (0, 0, 0, missing)) if missing else x
    return x.unflatten(2, (-1, dilation)).permute(0, 3, 1, 2, 4)
