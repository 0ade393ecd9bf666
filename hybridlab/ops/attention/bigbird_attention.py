"""Softmax attention between blocks: each sees those near it, the first of the row, and some that are chosen for it.

Letters: b batch, h heads, g heads that have keys of their own (h is a multiple of g), n queries, that stand at the last
n of t keys, in l blocks of queries and m blocks of keys, c chosen, k width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.attention.block_attention import block_attention
from hybridlab.ops.attention.fused_attention import fused_attention
from hybridlab.ops.kernels.dispatch import can_use_block_kernel


def dense_bigbird_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g t k"],
    v: Float[Tensor, "b g t k"],
    chosen: Int[Tensor, "h l c"],
    block: int,
    near: int,
    first: int,
    *,
    causal: bool = True,
) -> Float[Tensor, "b h n k"]:
    """Attend under one (n, t) mask per head: query i stands at key t-n+i. The obvious form, O(n·t).

    Each block sees itself and the near-1 blocks before it, the `first` blocks of the row, and those that are `chosen` for
    it: each whole and before the near ones; -1 chooses nothing. No token sees what is ahead of it. If not `causal`, n is
    t, and a block also sees the near-1 blocks after it, and any that are chosen; the first blocks see all.
    """
    keys = torch.arange(k.shape[2], device=q.device)
    queries = keys[k.shape[2] - q.shape[2] :]
    own = queries // block
    visible = bigbird_mask(queries, keys, chosen[:, own - own[0]], block, near, first, causal=causal)
    return fused_attention(q, k, v, visible)


def bigbird_mask(
    queries: Int[Tensor, " n"],
    keys: Int[Tensor, " t"],
    chosen: Int[Tensor, "h n c"],
    block: int,
    near: int,
    first: int,
    *,
    causal: bool = True,
) -> Bool[Tensor, "h n t"]:
    """Say which of the keys each query sees, by the positions of both and the blocks that are chosen for each query."""
    own = queries[:, None]
    visible = ((own // block - keys // block).abs() < near) | (keys < first * block)
    visible = visible | (chosen[..., None] == keys // block).any(-2)
    return visible & (keys <= own) if causal else visible | (own < first * block)


def bigbird_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g t k"],
    v: Float[Tensor, "b g t k"],
    chosen: Int[Tensor, "h l c"],
    block: int,
    near: int,
    first: int,
    *,
    causal: bool = True,
) -> Float[Tensor, "b h n k"]:
    """Give what `dense_bigbird_attention` gives, exactly, in O(n·(near + first + c)·block) time and memory.

    The blocks that a block of queries sees are gathered side by side (2007.14062, appendix D), under a mask that all heads
    share. If not `causal`, the queries of the first blocks attend to the whole row, in O(first·block·t). GPU kernels take
    blocks that each token lists.
    """
    (b, h, n, _), (g, t) = q.shape, k.shape[1:3]
    start, before = divmod(t - n, block)
    m = -(-t // block)
    seen = _seen(chosen, start, m, near, first, causal)  # h l s
    if causal and can_use_block_kernel(v, k.shape[-1], v.shape[-1], block, 1):
        far = torch.cat([seen[..., :first], seen[..., first + near :]], dim=-1)  # all but those near
        listed = far.repeat_interleave(block, dim=1)[:, before : before + n]
        return block_attention(q, k, v, listed.expand(b, -1, -1, -1), block, near)
    one = start == m - 1  # a few queries in one block are not filled up to a block
    q = q if one else F.pad(q, (0, 0, before, -t % block))
    positions = torch.arange(t - n if one else start * block, t if one else m * block, device=q.device)
    keys = seen[..., None] * block + torch.arange(block, device=q.device)
    # Of the blocks that are seen, what differs from head to head are the chosen ones, and these are seen whole.
    visible = _visible(positions.unflatten(0, (m - start, -1)), seen[0], keys[0].flatten(-2), t, block, causal)
    rows = torch.arange(b * g, device=q.device).repeat_interleave(h // g)[:, None, None] * m
    rows = (seen.clamp(min=0).repeat(b, 1, 1) + rows).flatten()
    blocks = (F.pad(x, (0, 0, 0, m * block - t)).reshape(b * g * m, -1) for x in (k, v))
    seen_keys, seen_values = (x.index_select(0, rows).reshape(b * h, m - start, -1, v.shape[-1]) for x in blocks)
    o = fused_attention(q.unflatten(2, (m - start, -1)).flatten(0, 1), seen_keys, seen_values, visible)
    o = o.reshape(b, h, -1, o.shape[-1])
    o = o if one else o[:, :, before : before + n]
    if causal:
        return o
    everywhere = fused_attention(q[:, :, : min(first * block, n)], k, v)
    return torch.cat([everywhere, o[:, :, first * block :]], dim=2)


def _seen(
    chosen: Int[Tensor, "h l c"], start: int, m: int, near: int, first: int, causal: bool
) -> Int[Tensor, "h l s"]:
    """Return the blocks that each block of queries sees, each once, and -1 in the places that are left over."""
    own = torch.arange(start, m, device=chosen.device)[:, None]
    around = own + torch.arange(1 - near, 1 if causal else near, device=chosen.device)
    around = torch.where((around >= 0) & (around < m), around, -1)
    firsts = torch.arange(first, device=chosen.device).expand(m - start, -1)
    # The first blocks that are near are seen there; those ahead are not seen.
    ahead = (firsts >= m) | ((firsts > own - near) if causal else ((firsts - own).abs() < near))
    always = torch.cat([torch.where(ahead, -1, firsts), around], dim=-1)
    return torch.cat([always.expand(chosen.shape[0], -1, -1), chosen], dim=-1)


def _visible(
    queries: Int[Tensor, "l n"],
    seen: Int[Tensor, "l s"],
    keys: Int[Tensor, "l s*block"],
    t: int,
    block: int,
    causal: bool,
) -> Bool[Tensor, "l n s*block"]:
    there = (seen >= 0).repeat_interleave(block, dim=-1) & (keys < t)
    return there[:, None] & (keys[:, None] <= queries[..., None]) if causal else there[:, None]
