"""Sliding-window softmax attention by PyTorch's flash kernels for GPUs, which skip key blocks that
no query sees.

Letters: b batch, h heads, g key heads (h is a multiple of g), n queries at the last n of t key
positions, k width.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn


def flash_sliding_attention(
    q: Float[Tensor, "b h n k"], k: Float[Tensor, "b g t k"], v: Float[Tensor, "b g t k"], window: int, *, causal: bool
) -> Float[Tensor, "b h n k"]:
    """Compute `sliding_attention` without global tokens and missing keys (FlashAttention-2,
    2307.08691).

    Each head of each sequence is passed as a sequence of its own, so that no head is moved in
    memory; shared keys are repeated.
    """
    (b, h, n, _), (g, t) = q.shape, k.shape[1:3]
    queries = q.flatten(0, 2)[:, None]
    keys, values = (x[:, :, None].expand(-1, -1, h // g, -1, -1).flatten(0, 3)[:, None] for x in (k, v))
    ends, key_ends = (
        torch.arange(0, (b * h + 1) * length, length, dtype=torch.int32, device=q.device) for length in (n, t)
    )
    ahead = 0 if causal else window - 1
    o = varlen_attn(queries, keys, values, ends, key_ends, n, t, window_size=(window - 1, ahead))
    return o.view_as(q)  # pyright: ignore[reportAttributeAccessIssue]
