"""Softmax attention to a window of tokens by PyTorch's flash kernels for GPUs, which skip what no query of a block sees.

Letters: b batch, h heads, g heads that have keys of their own (h is a multiple of g), n queries, that stand at the last
n of t keys, k width.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn


def flash_sliding_attention(
    q: Float[Tensor, "b h n k"], k: Float[Tensor, "b g t k"], v: Float[Tensor, "b g t k"], window: int, *, causal: bool
) -> Float[Tensor, "b h n k"]:
    """Give what `sliding_attention` gives without sinks and missing keys (FlashAttention-2, 2307.08691).

    Each row of each head is a row of its own, so that heads that lie one behind the other need not be moved; keys that
    heads share are repeated.
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
