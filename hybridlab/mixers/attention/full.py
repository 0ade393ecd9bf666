"""Full softmax attention."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.parts.key_values import KeyValues
from hybridlab.mixers.parts.projections import QueryKeyValue, join_heads
from hybridlab.ops.attention.attention_weights import attention_weights
from hybridlab.ops.attention.fused_attention import fused_attention


class Full(Mixer):
    """o_t = Σ_{j≤t} softmax_j(q_t·k_j / √k) v_j, over several heads; bidirectional: the sum is over all j.

    Keys and values may be shared by groups of heads (`kv_heads`); positions are rotary, or none (`rope` null).
    """

    kind = "full"
    paper = "Vaswani et al. 2017, 1706.03762"
    bounded_state = False

    def __init__(
        self,
        *,
        width: int,
        causal: bool = True,
        heads: int = 4,
        kv_heads: int | None = None,
        rope: float | None = 10000.0,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.projections = QueryKeyValue(width=width, heads=heads, kv_heads=kv_heads, rope=rope, qk_norm=qk_norm)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Attend from each token to itself and to all before it; if not causal, to all."""
        q, k, v = self.projections(x)
        o = fused_attention(q, k, v, causal=self.causal)
        return self.out(join_heads(o))

    def attention(self, x: Float[Tensor, "b t d"], at: Int[Tensor, " n"]) -> Float[Tensor, "b h n t"]:
        """Return how much the tokens at some positions read of each token."""
        q, k, _ = self.projections(x)
        visible = (torch.arange(x.shape[1], device=x.device) <= at[:, None]) | (not self.causal)
        return attention_weights(q[:, :, at], k, visible)

    def initial_state(self, batch: int, like: Tensor) -> KeyValues:
        """Return no keys and no values."""
        return self.projections.no_past(batch, like)

    def extend(self, x: Float[Tensor, "b n d"], state: KeyValues) -> tuple[Float[Tensor, "b n d"], KeyValues]:
        """Attend from each new token to the past and to the piece up to itself."""
        past, n = state.past, x.shape[1]
        q, k, v = self.projections(x, past)
        state = state.and_then(k, v)
        # `is_causal` lines the first query up with the first key, but these stand at the last keys. One alone sees all.
        mask = None if n == 1 else torch.ones(n, past + n, dtype=torch.bool, device=x.device).tril(past)
        o = fused_attention(q, *state.like(q), mask)
        return self.out(join_heads(o)), state
