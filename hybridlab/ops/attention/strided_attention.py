"""Softmax attention to the latest tokens and to every `stride`-th before them.

Letters: b batch, h heads, g key heads (h is a multiple of g), n queries at the last n of t key
positions, s stride, m blocks of s keys, k width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.attention.fused_attention import fused_attention
from hybridlab.ops.attention.softmax_part import Part, softmax_part
from hybridlab.ops.precision import autocast_off


def dense_strided_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g t k"],
    v: Float[Tensor, "b g t k"],
    stride: int,
    *,
    causal: bool = True,
) -> Float[Tensor, "b h n k"]:
    """Attend under one (n, t) mask: query i is at key position t-n+i and sees keys less than
    `stride` or a multiple of it away.

    If not `causal`, n is t and keys ahead are visible like those behind. The obvious form, O(n·t).
    """
    keys = torch.arange(k.shape[2], device=q.device)
    visible = strided_mask(keys[k.shape[2] - q.shape[2] :], keys, stride, causal=causal)
    return fused_attention(q, k, v, visible)


def strided_mask(
    queries: Int[Tensor, " n"], keys: Int[Tensor, " t"], stride: int, *, causal: bool = True
) -> Bool[Tensor, "n t"]:
    """Return which keys each query sees, given the positions of both."""
    distance = queries[:, None] - keys
    visible = (distance.abs() < stride) | (distance % stride == 0)
    return visible & (distance >= 0) if causal else visible


def strided_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g t k"],
    v: Float[Tensor, "b g t k"],
    stride: int,
    *,
    causal: bool = True,
) -> Float[Tensor, "b h n k"]:
    """Compute `dense_strided_attention` exactly in O(n·(s + t/s)) time and memory (2019,
    1904.10509).

    In lines of `stride` tokens the sequence is a table. A query sees the latest tokens, which are
    in its line and the one before (if not `causal`, also the one after), and its column: two parts
    of one softmax.
    """
    n, t = q.shape[2], k.shape[2]
    if n < stride:
        return dense_strided_attention(q, k, v, stride, causal=causal)
    with autocast_off(v):
        # The first line of queries is the line of keys that contains the first query.
        start, padding = divmod(t - n, stride)
        q = F.pad(q * q.shape[-1] ** -0.5, (0, 0, padding, -t % stride)).unflatten(2, (-1, stride))
        q = q.unflatten(1, (k.shape[1], -1))  # b g h/g m-start s k
        k, v = (F.pad(x, (0, 0, 0, -t % stride)).unflatten(2, (-1, stride)) for x in (k, v))  # b g m s k
        o = _merge(_near(q, k, v, start, t, causal), _column(q, k, v, start, t, causal))
        return o.flatten(3, 4)[:, :, :, padding : padding + n].flatten(1, 2).to(v.dtype)


def _near(
    q: Float[Tensor, "b g r l s k"],
    k: Float[Tensor, "b g m s k"],
    v: Float[Tensor, "b g m s k"],
    start: int,
    t: int,
    causal: bool,
) -> Part:
    """Attend from each line of queries to the tokens of the lines around it that are less than a
    stride away."""
    r, s, m = q.shape[2], q.shape[4], k.shape[2]
    seen = 2 if causal else 3
    k, v = (_lines_around(x, start, seen) for x in (k, v))
    positions = torch.arange((start - 1) * s, (m + seen - 2) * s, device=q.device).unfold(0, seen * s, s)
    distance = torch.arange(s, 2 * s, device=q.device)[:, None] - torch.arange(seen * s, device=q.device)
    visible = (distance < s) & (distance >= 0 if causal else distance > -s)
    visible = visible & ((positions >= 0) & (positions < max(t, m * s * causal)))[:, None]
    # Heads that share keys are additional queries of the same line.
    part = softmax_part(q.transpose(2, 3).flatten(3, 4), k, v, ~visible.repeat(1, r, 1))
    sums, total, top = (x.unflatten(3, (r, s)).transpose(2, 3) for x in part)
    return sums, total, top


def _column(
    q: Float[Tensor, "b g r l s k"],
    k: Float[Tensor, "b g m s k"],
    v: Float[Tensor, "b g m s k"],
    start: int,
    t: int,
    causal: bool,
) -> Part:
    """Attend from each query to the tokens of its column, except itself, which counts as near."""
    (r, num_lines, s), m = q.shape[2:5], k.shape[2]
    lines = torch.arange(m, device=q.device)
    own = lines[start:, None]
    if causal:
        visible = lines < own
    else:
        columns = torch.arange(s, device=q.device)[:, None, None]
        visible = (lines != own) & (lines * s + columns < t)
    visible = visible.repeat(*(1 for _ in visible.shape[2:]), r, 1)
    part = softmax_part(q.permute(0, 1, 4, 2, 3, 5).flatten(3, 4), k.transpose(2, 3), v.transpose(2, 3), ~visible)
    sums, total, top = (x.unflatten(3, (r, num_lines)).permute(0, 1, 3, 4, 2, 5) for x in part)
    return sums, total, top


def _merge(first: Part, second: Part) -> Tensor:
    """Merge two softmax parts: divide their summed values by their summed weights, scaled by the
    greatest score."""
    top = torch.maximum(first[2], second[2])
    scales = [(each[2] - top).exp() for each in (first, second)]
    sums = first[0] * scales[0] + second[0] * scales[1]
    return sums / (first[1] * scales[0] + second[1] * scales[1])


def _lines_around(x: Float[Tensor, "b g m s k"], start: int, seen: int) -> Float[Tensor, "b g l seen_s k"]:
    """Return, for each line from `start` on, the line before, the line itself and, if `seen` is 3,
    the one after."""
    x = F.pad(x, (0, 0, 0, 0, 1, seen - 2))
    num_lines = x.shape[2] - seen + 1
    return torch.cat([x[:, :, start + i : num_lines + i] for i in range(seen)], dim=3)
