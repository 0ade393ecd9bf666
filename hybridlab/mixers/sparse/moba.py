"""Mixture of block attention."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hybridlab.mixers.parts.softmax_attention import SoftmaxAttention
from hybridlab.ops.attention.attention_weights import attention_weights
from hybridlab.ops.attention.block_attention import block_attention, block_mask
from hybridlab.ops.attention.block_choice import choice_by_mean
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.validate import whole


class MobaState(NamedTuple):
    """Rotated keys and values of all past tokens, and the mean key of each finished block."""

    keys: Float[Tensor, "b g past k"]
    values: Float[Tensor, "b g past k"]
    means: Float[Tensor, "b g m k"]


class Moba(SoftmaxAttention):
    """o_t = Σ_j softmax_j(q_t·k_j / √k) v_j over the j ≤ t in `top_k` blocks, one the token's own.

    Each head chooses the blocks whose mean key has the largest product with q_t. The choice has no
    gradient of its own: keys and queries learn it through the attention.
    """

    kind = "sparse"
    paper = "Lu et al. 2025, 2502.13189"
    bounded_state = False
    free_sizes = ("top_k",)

    def __init__(
        self,
        *,
        width: int,
        heads: int = 4,
        kv_heads: int | None = None,
        block: int = 64,
        top_k: int = 3,
        rope: float | None = 10000.0,
    ) -> None:
        super().__init__(width=width, heads=heads, kv_heads=kv_heads, rope=rope)
        whole(block=block, top_k=top_k)
        self.block, self.top_k = block, top_k

    def attention(self, x: Float[Tensor, "b t d"], at: Int[Tensor, " n"]) -> Float[Tensor, "b h n t"]:
        """Return the weights of all tokens for the queries at some positions."""
        q, k, _ = self.projections(x)
        chosen = choice_by_mean(q, self._means(k), 0, self.block, self.top_k - 1)[:, :, at]
        visible = block_mask(at, torch.arange(x.shape[1], device=x.device), chosen, self.block)
        return attention_weights(q[:, :, at], k, visible)

    def initial_state(self, batch: int, like: Tensor) -> MobaState:
        """Return empty keys, values and means."""
        empty, _ = self.projections.no_past(batch, like)
        return MobaState(empty, empty, empty.to(accumulation_dtype(like)))

    def extend(self, x: Float[Tensor, "b n d"], state: MobaState) -> tuple[Float[Tensor, "b n d"], MobaState]:
        """Append the chunk, and the blocks that it finishes, to the past, and attend from it."""
        q, k, v = self.projections(x, state.keys.shape[2])
        keys = torch.cat([state.keys, k.to(state.keys.dtype)], dim=2)
        values = torch.cat([state.values, v.to(state.values.dtype)], dim=2)
        finished = self._means(keys[:, :, state.means.shape[2] * self.block :])
        means = torch.cat([state.means, finished.to(state.means.dtype)], dim=2)
        y = self._attend_to_chosen(q, keys.to(q.dtype), values.to(q.dtype), means)
        return y, MobaState(keys, values, means)

    def _attend(
        self, q: Float[Tensor, "b h t k"], k: Float[Tensor, "b g t k"], v: Float[Tensor, "b g t k"]
    ) -> Float[Tensor, "b t d"]:
        return self._attend_to_chosen(q, k, v, self._means(k))

    def _attend_to_chosen(
        self,
        q: Float[Tensor, "b h n k"],
        k: Float[Tensor, "b g t k"],
        v: Float[Tensor, "b g t k"],
        means: Float[Tensor, "b g m k"],
    ) -> Float[Tensor, "b n d"]:
        past = k.shape[2] - q.shape[2]
        chosen = choice_by_mean(q, means, past, self.block, self.top_k - 1)
        return self._write(block_attention(q, k, v, chosen, self.block))

    def _means(self, keys: Float[Tensor, "b g t k"]) -> Float[Tensor, "b g m k"]:
        """Return the mean key of each full block."""
        full = keys.shape[2] // self.block
        blocks = keys.detach()[:, :, : full * self.block].unflatten(2, (full, self.block))
        return blocks.mean(dim=3, dtype=accumulation_dtype(keys))
