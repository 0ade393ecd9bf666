"""Mixture of block attention."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.parts.projections import QueryKeyValue, join_heads
from hybridlab.ops.attention.attention_weights import attention_weights
from hybridlab.ops.attention.block_attention import block_attention, block_mask
from hybridlab.ops.attention.block_choice import choice_by_mean
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.validate import whole


class MobaState(NamedTuple):
    """The keys (turned to their positions) and values of all past tokens, and the mean key of each finished block."""

    keys: Float[Tensor, "b g past k"]
    values: Float[Tensor, "b g past k"]
    means: Float[Tensor, "b g m k"]


class Moba(Mixer):
    """o_t = Σ_j softmax_j(q_t·k_j / √k) v_j over the j ≤ t in the token's own block and in `top_k` - 1 earlier ones.

    Chosen are the blocks whose mean key has the greatest product with q_t, by each head for itself. The choice has no
    gradient of its own: keys and queries learn it through the attention. Keys and values may be shared by groups of
    heads (`kv_heads`); positions are rotary, or none (`rope` null).
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
        super().__init__()
        whole(block=block, top_k=top_k)
        self.block, self.top_k = block, top_k
        self.projections = QueryKeyValue(width=width, heads=heads, kv_heads=kv_heads, rope=rope)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Attend from each token to the blocks that it chose."""
        q, k, v = self.projections(x)
        return self._attend(q, k, v, self._means(k))

    def attention(self, x: Float[Tensor, "b t d"], at: Int[Tensor, " n"]) -> Float[Tensor, "b h n t"]:
        """Return how much the tokens at some positions read of each token."""
        q, k, _ = self.projections(x)
        chosen = choice_by_mean(q, self._means(k), 0, self.block, self.top_k - 1)[:, :, at]
        visible = block_mask(at, torch.arange(x.shape[1], device=x.device), chosen, self.block)
        return attention_weights(q[:, :, at], k, visible)

    def initial_state(self, batch: int, like: Tensor) -> MobaState:
        """Return no keys, no values and no blocks."""
        empty = like.new_empty(batch, self.projections.kv_heads, 0, self.projections.head_width)
        return MobaState(empty, empty, empty.to(accumulation_dtype(like)))

    def extend(self, x: Float[Tensor, "b n d"], state: MobaState) -> tuple[Float[Tensor, "b n d"], MobaState]:
        """Add the piece and the blocks that it finishes to the past, and attend from it."""
        q, k, v = self.projections(x, state.keys.shape[2])
        keys = torch.cat([state.keys, k.to(state.keys.dtype)], dim=2)
        values = torch.cat([state.values, v.to(state.values.dtype)], dim=2)
        finished = self._means(keys[:, :, state.means.shape[2] * self.block :])
        means = torch.cat([state.means, finished.to(state.means.dtype)], dim=2)
        return self._attend(q, keys.to(q.dtype), values.to(q.dtype), means), MobaState(keys, values, means)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, means: Tensor) -> Tensor:
        past = k.shape[2] - q.shape[2]
        chosen = choice_by_mean(q, means, past, self.block, self.top_k - 1)
        return self.out(join_heads(block_attention(q, k, v, chosen, self.block)))

    def _means(self, keys: Float[Tensor, "b g t k"]) -> Float[Tensor, "b g m k"]:
        """Return the mean key of each block that is full."""
        full = keys.shape[2] // self.block
        blocks = keys.detach()[:, :, : full * self.block].unflatten(2, (full, self.block))
        return blocks.mean(dim=3, dtype=accumulation_dtype(keys))
