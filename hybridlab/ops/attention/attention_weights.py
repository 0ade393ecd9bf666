"""The weights of softmax attention for a few queries: for inspection, not for training."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hybridlab.ops.precision import accumulation_dtype


def attention_weights(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g t k"],
    visible: Bool[Tensor, "*heads n t"],
    bias: Float[Tensor, "b h 1 t"] | float = 0.0,
) -> Float[Tensor, "b h n t"]:
    """Return softmax_j(q_i·k_j / √k + bias_j) over the visible keys; h is a multiple of g. O(n·t)
    memory."""
    dtype = accumulation_dtype(q)
    q, k = q.to(dtype), k.to(dtype).repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = q @ k.mT * q.shape[-1] ** -0.5 + bias
    return scores.masked_fill(~visible, -torch.inf).softmax(-1)
