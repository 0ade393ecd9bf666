"""Softmax attention between blocks: each sees the blocks near it, the first of the sequence, and
some chosen ones.

Letters: b batch, h heads, g key heads (h is a multiple of g), n queries at the last n of t key
positions, in l blocks of queries and m blocks of keys, c chosen, k width.
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
    """Attend under one (n, t) mask per head; query i is at key position t-n+i. The obvious form,
    O(n·t).

    Each block sees itself and the near-1 blocks before it, the `first` blocks of the sequence, and
    its `chosen` blocks, which are whole and lie before the near ones; -1 chooses nothing. No token
    sees later tokens. If not `causal`, n is t, a block also sees the near-1 blocks after it and may
    choose any block, and the first blocks see everything.
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
    """Return which keys each query sees, given the positions of both and the blocks chosen for each
    query."""
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
    """Compute `dense_bigbird_attention` exactly in O(n·(near + first + c)·block) time and memory.

    The blocks that a block of queries sees are gathered side by side (2007.14062, appendix D),
    under a mask that all heads share. If not `causal`, the queries of the first blocks attend to
    the whole sequence, in O(first·block·t). GPU kernels take a list of blocks per token.
    """
    (b, h, n, _), (g, t) = q.shape, k.shape[1:3]
    start, padding = divmod(t - n, block)
    m = -(-t // block)
    seen = _visible_blocks(chosen, start, m, near, first, causal)  # h l s
    if causal and can_use_block_kernel(v, k.shape[-1], v.shape[-1], block, 1):
        far = torch.cat([seen[..., :first], seen[..., first + near :]], dim=-1)  # all but the near blocks
        listed = far.repeat_interleave(block, dim=1)[:, padding : padding + n]
        return block_attention(q, k, v, listed.expand(b, -1, -1, -1), block, near)
    single_block = start == m - 1  # a few queries in a single block are not padded to a whole block
    q = q if single_block else F.pad(q, (0, 0, padding, -t % block))
    positions = torch.arange(
        t - n if single_block else start * block, t if single_block else m * block, device=q.device
    )
    keys = seen[..., None] * block + torch.arange(block, device=q.device)
    # Heads differ only in their chosen blocks, and these are visible whole: the mask of one head
    # holds for all.
    visible = _visible(positions.unflatten(0, (m - start, -1)), seen[0], keys[0].flatten(-2), t, block, causal)
    indices = torch.arange(b * g, device=q.device).repeat_interleave(h // g)[:, None, None] * m
    indices = (seen.clamp(min=0).repeat(b, 1, 1) + indices).flatten()
    blocks = (F.pad(x, (0, 0, 0, m * block - t)).reshape(b * g * m, -1) for x in (k, v))
    seen_keys, seen_values = (x.index_select(0, indices).reshape(b * h, m - start, -1, v.shape[-1]) for x in blocks)
    o = fused_attention(q.unflatten(2, (m - start, -1)).flatten(0, 1), seen_keys, seen_values, visible)
    o = o.reshape(b, h, -1, o.shape[-1])
    o = o if single_block else o[:, :, padding : padding + n]
    if causal:
        return o
    o_first = fused_attention(q[:, :, : min(first * block, n)], k, v)
    return torch.cat([o_first, o[:, :, first * block :]], dim=2)


def _visible_blocks(
    chosen: Int[Tensor, "h l c"], start: int, m: int, near: int, first: int, causal: bool
) -> Int[Tensor, "h l s"]:
    """Return the blocks that each block of queries sees, each once, and -1 in unused entries."""
    own = torch.arange(start, m, device=chosen.device)[:, None]
    around = own + torch.arange(1 - near, 1 if causal else near, device=chosen.device)
    around = torch.where((around >= 0) & (around < m), around, -1)
    firsts = torch.arange(first, device=chosen.device).expand(m - start, -1)
    # First blocks that are also near are listed as near; those ahead are hidden.
    ahead = (firsts >= m) | ((firsts > own - near) if causal else ((firsts - own).abs() < near))
    always = torch.cat([torch.where(ahead, -1, firsts), around], dim=-1)
    return torch.cat([always.expand(chosen.shape[0], -1, -1), chosen], dim=-1)


def _visible(
    queries: Int[Tensor, "l n"],
    seen: Int[Tensor, "l s"],
    keys: Int[Tensor, "l seen"],
    t: int,
    block: int,
    causal: bool,
) -> Bool[Tensor, " l #n seen"]:
    exists = (seen >= 0).repeat_interleave(block, dim=-1) & (keys < t)
    return exists[:, None] & (keys[:, None] <= queries[..., None]) if causal else exists[:, None]
