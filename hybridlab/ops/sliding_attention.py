"""Causal softmax attention in which each token sees a fixed number of tokens: itself and those just before it."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

# Blocks much smaller than this leave the matrix products too little to do.
SMALLEST_BLOCK = 64


def dense_sliding_attention(
    q: Float[Tensor, "b h n k"], k: Float[Tensor, "b g t k"], v: Float[Tensor, "b g t k"], window: int
) -> Float[Tensor, "b h n k"]:
    """Attend under one (n, t) mask: query i stands at key t-n+i and sees the `window` keys that end there.

    The obvious form, O(n·t); heads h are a multiple of g, the heads that have keys of their own.
    """
    n, t = q.shape[2], k.shape[2]
    if n == 1 and window >= t:
        return _attend(q, k, v)
    if n == t and window >= t:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
    return _attend(q, k, v, _band(n, t, window, q.device))


def sliding_attention(
    q: Float[Tensor, "b h n k"], k: Float[Tensor, "b g t k"], v: Float[Tensor, "b g t k"], window: int
) -> Float[Tensor, "b h n k"]:
    """Give what `dense_sliding_attention` gives, exactly, in O(n·window) time and memory.

    Queries are cut into blocks at least as long as the window, so that each needs its own block of keys and the one
    before, under one mask for all; the first block also sees what came before the piece (Longformer, 2004.05150).
    """
    n = q.shape[2]
    earliest = max(k.shape[2] - n - window + 1, 0)
    k, v = k[:, :, earliest:], v[:, :, earliest:]
    block = max(window, SMALLEST_BLOCK)
    if n <= block:
        return dense_sliding_attention(q, k, v, window)
    past = k.shape[2] - n
    head = dense_sliding_attention(q[:, :, :block], k[:, :, : past + block], v[:, :, : past + block], window)
    tail = _attend_in_blocks(q[:, :, block:], k[:, :, past:], v[:, :, past:], window, block)
    return torch.cat([head, tail], dim=2)


def _attend_in_blocks(
    q: Float[Tensor, "b h n k"], k: Float[Tensor, "b g t k"], v: Float[Tensor, "b g t k"], window: int, block: int
) -> Float[Tensor, "b h n k"]:
    """Attend from each block of queries to two blocks of keys; the keys start one block before the queries."""
    b, h, n, _ = q.shape
    g = k.shape[1]
    q, k, v = (_pad_to_blocks(x, block) for x in (q, k, v))
    # The heads that share keys become more queries of the same block: nothing is repeated.
    queries = q.unflatten(2, (-1, block)).unflatten(1, (g, h // g)).transpose(2, 3)  # b g blocks h/g block k
    mask = _band(block, 2 * block, window, q.device).repeat(h // g, 1)
    o = _attend(queries.flatten(3, 4).flatten(0, 1), _pairs_of_blocks(k, block), _pairs_of_blocks(v, block), mask)
    o = o.unflatten(2, (h // g, block)).unflatten(0, (b, g)).transpose(2, 3)  # b g h/g blocks block k
    return o.reshape(b, h, -1, o.shape[-1])[:, :, :n]


def _pairs_of_blocks(x: Float[Tensor, "b g t k"], block: int) -> Float[Tensor, "b*g blocks-1 2*block k"]:
    blocks = x.unflatten(2, (-1, block)).flatten(0, 1)
    return torch.cat([blocks[:, :-1], blocks[:, 1:]], dim=2)


def _pad_to_blocks(x: Float[Tensor, "b h t k"], block: int) -> Float[Tensor, "b h t+pad k"]:
    missing = -x.shape[2] % block
    return F.pad(x, (0, 0, 0, missing)) if missing else x


def _band(n: int, t: int, window: int, device: torch.device) -> Bool[Tensor, "n t"]:
    return torch.ones(n, t, dtype=torch.bool, device=device).tril(t - n).triu(t - n - window + 1)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=q.shape[1] != k.shape[1])
