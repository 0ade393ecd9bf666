"""Softmax attention to a fixed number of tokens: those near each token and, optionally, the first
of the sequence.

Letters: b batch, h heads, g key heads (h is a multiple of g), n queries at the last n of t key
positions, k width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.attention.flash_sliding_attention import flash_sliding_attention
from hybridlab.ops.attention.fused_attention import fused_attention
from hybridlab.ops.kernels.dispatch import can_use_flash

# Much smaller blocks make the matrix products inefficient.
SMALLEST_BLOCK = 64


def dense_sliding_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g t k"],
    v: Float[Tensor, "b g t k"],
    window: int,
    *,
    causal: bool = True,
    global_tokens: int = 0,
    missing: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, "b h n k"]:
    """Attend under one (n, t) mask: query i is at key position t-n+i and sees the `window` keys
    that end there.

    It also sees those of the first `global_tokens` keys that are not ahead of it (StreamingLLM,
    2309.17453). If not `causal`, n is t, the window reaches as far ahead as behind, and the first
    `global_tokens` tokens see all tokens and are seen by all (the symmetric global attention of
    Longformer, 2004.05150). The first `missing` keys of a sequence are hidden. The obvious form,
    O(n·t).
    """
    keys = torch.arange(k.shape[2], device=q.device)
    visible = sliding_mask(keys[k.shape[2] - q.shape[2] :], keys, window, causal=causal, global_tokens=global_tokens)
    return fused_attention(q, k, v, _hide_missing(missing, visible))


def sliding_mask(
    queries: Int[Tensor, " n"], keys: Int[Tensor, " t"], window: int, *, causal: bool = True, global_tokens: int = 0
) -> Bool[Tensor, "n t"]:
    """Return which keys each query sees, given the positions of both."""
    distance = queries[:, None] - keys
    near = (distance < window) | (keys < global_tokens)
    if causal:
        return near & (distance >= 0)
    return near & ((distance > -window) | (keys < global_tokens)) | (queries < global_tokens)[:, None]


def sliding_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g t k"],
    v: Float[Tensor, "b g t k"],
    window: int,
    *,
    causal: bool = True,
    global_tokens: int = 0,
    missing: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, "b h n k"]:
    """Compute `dense_sliding_attention` exactly in O(n·(window + global_tokens)) time and memory.

    Queries are split into blocks at least as long as the window, so that each block needs its own
    block of keys, the one before and, if not `causal`, the one after, under one mask for all
    (Longformer, 2004.05150). The first block also sees the past: if this holds more than
    global_tokens + window - 1 keys, none may be `missing`. On a GPU, in half precision, kernels
    with window support run if there are neither global tokens nor missing keys.
    """
    if missing is None and not global_tokens and can_use_flash(q):
        return flash_sliding_attention(q, k, v, window, causal=causal)
    n, past = q.shape[2], k.shape[2] - q.shape[2]
    if (unseen := past - global_tokens - window + 1) > 0:
        k, v, past = _drop_keys(k, global_tokens, unseen), _drop_keys(v, global_tokens, unseen), past - unseen
    block = max(window, SMALLEST_BLOCK)
    # A window that ends at `first` or later begins after all global tokens: no block sees a key
    # twice.
    first = min(max(-(-(window + global_tokens - 1) // block), 1) * block, n)
    num_blocks = -(-(n - first) // block) if causal else max((n - first) // block - 1, 0)
    last = min(first + num_blocks * block, n)
    parts = [_attend_at_start(q[:, :, :first], k, v, past, window, causal, global_tokens, missing)]
    if num_blocks:
        seen = slice(past + first - block, past + last + (0 if causal else block))
        parts.append(
            _attend_in_blocks(
                q[:, :, first:last],
                k[:, :, seen],
                v[:, :, seen],
                k[:, :, :global_tokens],
                v[:, :, :global_tokens],
                window,
                block,
                causal,
            )
        )
    if last < n:
        parts.append(_attend_at_end(q[:, :, last:], k, v, window, global_tokens))
    o = torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
    # Sinks see the whole sequence: their output of the windowed pass is discarded.
    return (
        o
        if causal or not global_tokens
        else torch.cat([fused_attention(q[:, :, :global_tokens], k, v), o[:, :, global_tokens:]], dim=2)
    )


def _drop_keys(x: Float[Tensor, "b g t k"], first: int, count: int) -> Float[Tensor, "b g kept k"]:
    """Remove `count` keys from index `first` on."""
    rest = x[:, :, first + count :]
    return torch.cat([x[:, :, :first], rest], dim=2) if first else rest


def _attend_at_start(
    q: Tensor, k: Tensor, v: Tensor, past: int, window: int, causal: bool, global_tokens: int, missing: Tensor | None
) -> Tensor:
    """Attend from the first queries to the past and to the tokens of the call."""
    n = q.shape[2]
    t = past + n if causal else min(past + n + window - 1, k.shape[2])
    k, v = k[:, :, :t], v[:, :, :t]
    if missing is None and window >= t and (not causal or n == 1):
        return fused_attention(q, k, v)
    if missing is None and window >= t and n == t:
        return fused_attention(q, k, v, causal=True)
    keys = torch.arange(t, device=q.device)
    visible = sliding_mask(keys[past : past + n], keys, window, causal=causal, global_tokens=global_tokens)
    return fused_attention(q, k, v, _hide_missing(missing, visible))


def _attend_in_blocks(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g t k"],
    v: Float[Tensor, "b g t k"],
    sink_keys: Float[Tensor, "b g s k"],
    sink_values: Float[Tensor, "b g s k"],
    window: int,
    block: int,
    causal: bool,
) -> Float[Tensor, "b h n k"]:
    """Attend from each block of queries to the blocks of keys around it; the keys start one block
    before the queries."""
    b, h, n, _ = q.shape
    g, seen = k.shape[1], 2 if causal else 3
    q, k, v = (_pad_to_blocks(x, block) for x in (q, k, v))
    # Heads that share keys become additional queries of the same block: no keys are repeated.
    queries = q.unflatten(2, (-1, block)).unflatten(1, (g, h // g)).transpose(2, 3)  # b g blocks h/g block k
    keys, values = _neighbours(k, sink_keys, block, seen), _neighbours(v, sink_values, block, seen)
    positions = torch.arange(seen * block, device=q.device)
    mask = sliding_mask(positions[block : 2 * block], positions, window, causal=causal)
    mask = F.pad(mask, (sink_keys.shape[2], 0), value=True).repeat(h // g, 1)
    o = fused_attention(queries.flatten(3, 4).flatten(0, 1), keys, values, mask)
    o = o.unflatten(2, (h // g, block)).unflatten(0, (b, g)).transpose(2, 3)  # b g h/g blocks block k
    return o.reshape(b, h, -1, o.shape[-1])[:, :, :n]


def _attend_at_end(q: Tensor, k: Tensor, v: Tensor, window: int, global_tokens: int) -> Tensor:
    """Attend from the last queries of a sequence to the global tokens and to their windows,
    which end with the sequence."""
    n, t = q.shape[2], k.shape[2]
    start = t - n - window + 1
    k, v = (
        torch.cat([x[:, :, :global_tokens], x[:, :, start:]], dim=2) if global_tokens else x[:, :, start:]
        for x in (k, v)
    )
    positions = torch.arange(start, t, device=q.device)
    mask = sliding_mask(positions[-n:], positions, window, causal=False)
    return fused_attention(q, k, v, F.pad(mask, (global_tokens, 0), value=True))


def _neighbours(
    x: Float[Tensor, "b g t k"], global_tokens: Float[Tensor, "b g s k"], block: int, seen: int
) -> Float[Tensor, "bg blocks seen k"]:
    """Return, for each block of queries, the global tokens and the blocks of keys around it."""
    blocks = x.unflatten(2, (-1, block)).flatten(0, 1)
    num_blocks = blocks.shape[1] - seen + 1
    parts = [blocks[:, i : i + num_blocks] for i in range(seen)]
    if global_tokens.shape[2]:
        parts.insert(0, global_tokens.flatten(0, 1)[:, None].expand(-1, num_blocks, -1, -1))
    return torch.cat(parts, dim=2)


def _pad_to_blocks(x: Float[Tensor, "b h t k"], block: int) -> Float[Tensor, "b h padded k"]:
    missing = -x.shape[2] % block
    return F.pad(x, (0, 0, 0, missing)) if missing else x


def _hide_missing(missing: Int[Tensor, " b"] | None, visible: Bool[Tensor, "n t"]) -> Bool[Tensor, "*b n t"]:
    """Hide the first `missing` keys of each sequence."""
    if missing is None:
        return visible
    keys = torch.arange(visible.shape[1], device=visible.device)
    return visible & (keys >= missing[:, None])[:, None, None]
