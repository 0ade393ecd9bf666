"""Nyström attention: bidirectional softmax attention through m landmarks, the means of m
segments."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.attention.fused_attention import fused_attention
from hybridlab.ops.attention.pseudo_inverse import iterative_pseudo_inverse
from hybridlab.ops.precision import accumulation_dtype, autocast_off


def dense_nystrom_attention(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    landmarks: int,
    iterations: int = 6,
) -> Float[Tensor, "b h t v"]:
    """Compute the t·t matrix softmax(q k̃ᵀ) softmax(q̃ k̃ᵀ)⁺ softmax(q̃ kᵀ), scores over √k
    (2102.03902, equation 7).

    q̃ and k̃ are the means of `landmarks` segments, as equal in length as t allows, the longer ones
    first. If there are no more tokens than landmarks, the tokens are the landmarks and attention is
    exact.
    """
    with autocast_off(v):
        dtype, scale = accumulation_dtype(v), q.shape[-1] ** -0.5
        queries, keys, values = (x.to(dtype) for x in (q, k, v))
        if q.shape[2] <= landmarks:
            return ((queries @ keys.mT * scale).softmax(-1) @ values).to(v.dtype)
        few_q, few_k = (
            torch.stack([segment.mean(2) for segment in x.tensor_split(landmarks, dim=2)], dim=2)
            for x in (queries, keys)
        )
        first, middle, last = (
            (left @ right.mT * scale).softmax(-1) for left, right in ((queries, few_k), (few_q, few_k), (few_q, keys))
        )
        return (first @ iterative_pseudo_inverse(middle, iterations) @ last @ values).to(v.dtype)


def nystrom_attention(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    landmarks: int,
    iterations: int = 6,
) -> Float[Tensor, "b h t v"]:
    """Compute `dense_nystrom_attention` in O(t·m): the outer factors are attention from and to m
    landmarks.

    The inverse is in float32 at least.
    """
    with autocast_off(v):
        if q.shape[2] <= landmarks:
            return fused_attention(q, k, v)
        dtype = accumulation_dtype(v)
        few_q, few_k = segment_means(q, landmarks), segment_means(k, landmarks)
        middle = (few_q @ few_k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        gathered = fused_attention(few_q.to(q.dtype), k, v).to(dtype)
        spread = (iterative_pseudo_inverse(middle, iterations) @ gathered).to(v.dtype)
        return fused_attention(q, few_k.to(k.dtype), spread)


def segment_means(x: Float[Tensor, "b h t k"], segments: int) -> Float[Tensor, "b h m k"]:
    """Return the means of segments as equal in length as t allows, the longer ones first; t >=
    segments.

    The result is in float32 at least.
    """
    length, longer = divmod(x.shape[2], segments)
    x = x.to(accumulation_dtype(x))
    border = longer * (length + 1)
    # Two groups of segments of equal length: no padding, so that means need no mask.
    tail = x[:, :, border:].unflatten(2, (segments - longer, length)).mean(3)
    if not longer:
        return tail
    return torch.cat([x[:, :, :border].unflatten(2, (longer, length + 1)).mean(3), tail], dim=2)
