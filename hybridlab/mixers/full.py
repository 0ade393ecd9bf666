"""Full causal softmax attention."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.projections import QueryKeyValue, join_heads


class FullState(NamedTuple):
    """The keys (turned to their positions) and values of all past tokens."""

    keys: Float[Tensor, "b g past k"]
    values: Float[Tensor, "b g past k"]


class Full(Mixer):
    """o_t = Σ_{j≤t} softmax_j(q_t·k_j / √k) v_j, over several heads.

    Keys and values may be shared by groups of heads (`kv_heads`); positions are rotary, or none (`rope` null).
    """

    kind = "full"
    paper = "Vaswani et al. 2017, 1706.03762"
    bounded_state = False

    def __init__(
        self, *, width: int, heads: int = 4, kv_heads: int | None = None, rope: float | None = 10000.0
    ) -> None:
        super().__init__()
        self.projections = QueryKeyValue(width=width, heads=heads, kv_heads=kv_heads, rope=rope)
        self.shared = self.projections.kv_heads != heads
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Attend from each token to itself and to all before it."""
        q, k, v = self.projections(x)
        return self.out(join_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.shared)))

    def initial_state(self, batch: int, like: Tensor) -> FullState:
        """Return no keys and no values."""
        empty = like.new_empty(batch, self.projections.kv_heads, 0, self.projections.head_width)
        return FullState(empty, empty)

    def extend(self, x: Float[Tensor, "b n d"], state: FullState) -> tuple[Float[Tensor, "b n d"], FullState]:
        """Attend from each new token to the past and to the piece up to itself."""
        past, n = state.keys.shape[2], x.shape[1]
        q, k, v = self.projections(x, past)
        state = FullState(
            torch.cat([state.keys, k.to(state.keys.dtype)], dim=2),
            torch.cat([state.values, v.to(state.values.dtype)], dim=2),
        )
        # `is_causal` lines the first query up with the first key, but these stand at the last keys. One alone sees all.
        mask = None if n == 1 else torch.ones(n, past + n, dtype=torch.bool, device=x.device).tril(past)
        k, v = state.keys.to(q.dtype), state.values.to(q.dtype)
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=self.shared)
        return self.out(join_heads(o)), state
