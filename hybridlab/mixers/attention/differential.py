"""Attention whose weights are the difference of two softmaxes."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.errors import ConfigError
from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.key_values import KeyValues
from hybridlab.mixers.parts.projections import QueryKeyValue, join_heads
from hybridlab.ops.attention.attention_weights import attention_weights
from hybridlab.ops.attention.differential_attention import differential_attention
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.validate import number, whole


class Differential(Mixer):
    """Differential attention.

    o_t = (1 - λ₀) RMSNorm(Σ_{j≤t} (softmax_j(q_t·k_j / √k) - λ softmax_j(q'_t·k'_j / √k)) v_j),
    bidirectional: the sum is over all j. λ = exp(a·b) - exp(a'·b') + λ₀ with learned vectors a, b,
    a', b' that all heads share. A head has two queries and two keys, half as wide as its value, and
    is normalised on its own. In the paper λ₀ (`lambda_init`) grows from 0.2 in the first layer to
    0.8 in deep ones, with little difference to 0.8 in all. Positions are rotary, or none (`rope`
    null).
    """

    kind = "full"
    paper = "Ye et al. 2024, 2410.05258"
    bounded_state = False

    def __init__(
        self,
        *,
        width: int,
        causal: bool = True,
        heads: int = 4,
        lambda_init: float = 0.8,
        rope: float | None = 10000.0,
    ) -> None:
        super().__init__()
        whole(heads=heads)
        if width % (2 * heads):
            raise ConfigError(f"heads={heads}: has two queries per head; 2·heads must divide the width, {width}")
        number(least=0, most=1, below=True, lambda_init=lambda_init)
        self.causal, self.lambda_init = causal, lambda_init
        self.projections = QueryKeyValue(width=width, heads=2 * heads, rope=rope)
        vectors = 0.1 * torch.randn(4, self.projections.head_width)
        self.vectors = tag(nn.Parameter(vectors), decay=False, initialise=False)
        self.norm = tag(nn.Parameter(torch.ones(width // heads)), decay=False, initialise=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Attend from each token to itself and all before it; if not causal, to all tokens."""
        return self._attend(*self._project(x, 0))

    def attention(self, x: Float[Tensor, "b t d"], at: Int[Tensor, " n"]) -> Float[Tensor, "b h n t"]:
        """Return the absolute weights of all tokens for some queries, divided by their sum."""
        q, k, _ = self._project(x, 0)
        visible = (torch.arange(x.shape[1], device=x.device) <= at[:, None]) | (not self.causal)
        first, second = (
            attention_weights(queries[:, :, at], keys, visible)
            for queries, keys in zip(q.chunk(2, -1), k.chunk(2, -1), strict=True)
        )
        sizes = (first - self._weight() * second).abs()
        return sizes / sizes.sum(-1, keepdim=True)

    def initial_state(self, batch: int, like: Tensor) -> KeyValues:
        """Return empty keys (a head's two side by side) and values."""
        keys, values = self.projections.no_past(batch, like)
        return KeyValues(*(each.unflatten(1, (-1, 2)).movedim(2, 3).flatten(3) for each in (keys, values)))

    def extend(self, x: Float[Tensor, "b n d"], state: KeyValues) -> tuple[Float[Tensor, "b n d"], KeyValues]:
        """Attend from each new token to the past and to the chunk up to itself."""
        q, k, v = self._project(x, state.past)
        state = state.and_then(k, v)
        return self._attend(q, *state.like(q)), state

    def _project(self, x: Tensor, past: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return each head's two queries, two keys and two halves of the value side by side."""
        q, k, v = (each.unflatten(1, (-1, 2)).movedim(2, 3).flatten(3) for each in self.projections(x, past))
        return q, k, v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        o = differential_attention(q.chunk(2, -1), k.chunk(2, -1), v, self._weight(), causal=self.causal)
        wide = o.to(accumulation_dtype(o))
        o = F.rms_norm(wide, wide.shape[-1:], eps=1e-5) * self.norm * (1 - self.lambda_init)
        return self.out(join_heads(o.to(v.dtype)))

    def _weight(self) -> Float[Tensor, ""]:
        """Return λ."""
        a, b, c, d = self.vectors.to(accumulation_dtype(self.vectors))
        return (a * b).sum().exp() - (c * d).sum().exp() + self.lambda_init
