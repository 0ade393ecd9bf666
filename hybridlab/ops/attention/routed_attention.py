"""Causal softmax attention within clusters: each token sees the latest members of its own cluster.

Letters: b batch, h heads, n queries at the last n of t key positions, k width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.attention.fused_attention import fused_attention
from hybridlab.ops.precision import autocast_off

# The smallest block of sorted tokens. No more queries than this attend to all keys: sorting would
# cost more than it saves.
MIN_BLOCK = 64
# Attention kernels want widths that are multiples of this.
ALIGNMENT = 8


def dense_routed_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t k"],
    log_weights: Float[Tensor, "b h t"],
    clusters: Int[Tensor, "b h t"],
    window: int,
) -> Float[Tensor, "b h n k"]:
    """Attend under one (n, t) mask: query i, at position t-n+i, sees the last `window` keys of its
    cluster up to itself.

    A key's softmax weight is multiplied by exp of its `log_weights`. The obvious form, O(n·t).
    """
    with autocast_off(v):
        queries = torch.arange(k.shape[2] - q.shape[2], k.shape[2], device=q.device)
        bias = log_weights[:, :, None, :].masked_fill(~routed_mask(queries, clusters, window), -torch.inf)
        return fused_attention(q, k, v, mask=bias.to(q.dtype))


def routed_mask(queries: Int[Tensor, " n"], clusters: Int[Tensor, "b h t"], window: int) -> Bool[Tensor, "b h n t"]:
    """Return which tokens the queries at these positions see, given the cluster of each token."""
    past = torch.arange(clusters.shape[2], device=clusters.device) <= queries[:, None]
    members = past & (clusters[:, :, queries, None] == clusters[:, :, None, :])
    # The number of members from a key to the query, both included.
    distance = members.flip(-1).cumsum(-1).flip(-1)
    return members & (distance <= window)


def routed_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t k"],
    log_weights: Float[Tensor, "b h t"],
    clusters: Int[Tensor, "b h t"],
    window: int,
) -> Float[Tensor, "b h n k"]:
    """Compute `dense_routed_attention` in O(t·window) time and memory, for clusters numbered from
    0, or -1.

    Sorted by (cluster, time), the members that a token sees come just before it: a sliding window
    over the sorted tokens that ends where the cluster begins. Later tokens shift the window as a
    whole without changing its content: it stays causal.
    """
    (n, width), t = q.shape[2:], k.shape[2]
    if n <= MIN_BLOCK:
        return dense_routed_attention(q, k, v, log_weights, clusters, window)
    with autocast_off(v):
        # One more column of queries and keys adds the log weights to their products; the others are
        # for alignment.
        q = F.pad(F.pad(q, (0, 1), value=1.0), (0, ALIGNMENT - 1, t - n, 0))
        k = torch.cat([k, (log_weights[..., None] * width**0.5).to(k.dtype)], dim=-1)
        k, v = F.pad(k, (0, ALIGNMENT - 1)), F.pad(v, (0, ALIGNMENT))
        ordered, order = clusters.sort(dim=-1, stable=True)
        starts = torch.arange(order.shape[0] * order.shape[1], device=q.device).reshape(*order.shape[:2], 1) * t
        vectors = torch.cat([q, k, v], dim=-1)
        q, k, v = (
            vectors.flatten(0, 2).index_select(0, (order + starts).flatten()).reshape(vectors.shape).chunk(3, dim=-1)
        )
        o = _windows(q, k, v, ordered, window, width**-0.5)[..., :width]
        position = order.argsort(dim=-1)[:, :, t - n :]
        return o.flatten(0, 2).index_select(0, (position + starts).flatten()).reshape(*o.shape[:2], n, width)


def _windows(q: Tensor, k: Tensor, v: Tensor, clusters: Tensor, window: int, scale: float) -> Tensor:
    """Attend from each block of sorted tokens to itself and the block before; blocks are at least
    as long as the window."""
    t, block = q.shape[2], max(window, MIN_BLOCK)
    missing = -t % block
    q = F.pad(q, (0, 0, 0, missing)).unflatten(2, (-1, block)).flatten(0, 1)
    k, v = (_pairs_of_blocks(F.pad(x, (0, 0, block, missing)), block) for x in (k, v))
    # Padding has clusters of its own. At the end it sees itself, because every query must see a
    # key.
    clusters = F.pad(clusters, (0, missing), value=-2)
    own = clusters.unflatten(2, (-1, block)).flatten(0, 1)
    seen = _pairs_of_blocks(F.pad(clusters, (block, 0), value=-3)[..., None], block)
    mask = (own[..., :, None] == seen.mT) & _band(block, window, q.device)
    o = fused_attention(q, k, v, mask, scale=scale)
    return o.unflatten(0, clusters.shape[:2]).flatten(2, 3)[:, :, :t]


def _pairs_of_blocks(x: Tensor, block: int) -> Tensor:
    blocks = x.unflatten(2, (-1, block)).flatten(0, 1)
    return torch.cat([blocks[:, :-1], blocks[:, 1:]], dim=2)


def _band(block: int, window: int, device: torch.device) -> Bool[Tensor, "block 2*block"]:
    ones = torch.ones(block, 2 * block, dtype=torch.bool, device=device)
    return ones.tril(block).triu(block - window + 1)
