"""Softmax attention to the latest tokens and to every `stride`-th before them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.parts.key_values import KeyValues
from hybridlab.mixers.parts.projections import QueryKeyValue, join_heads
from hybridlab.ops.attention.attention_weights import attention_weights
from hybridlab.ops.attention.strided_attention import strided_attention, strided_mask
from hybridlab.validate import whole


class Strided(Mixer):
    """o_t = Σ_j softmax_j(q_t·k_j / √k) v_j over the j ≤ t with t-j < stride or (t-j) mod stride = 0.

    The strided pattern of Sparse Transformers, both of its parts in each head: any token reaches any earlier one in two
    layers. Bidirectional: |t-j| in place of t-j. Keys and values may be shared by groups of heads (`kv_heads`); positions
    are rotary, or none (`rope` null).
    """

    kind = "sparse"
    paper = "Child et al. 2019, 1904.10509"
    bounded_state = False

    def __init__(
        self,
        *,
        width: int,
        causal: bool = True,
        heads: int = 4,
        kv_heads: int | None = None,
        stride: int = 128,
        rope: float | None = 10000.0,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        whole(stride=stride)
        self.causal, self.stride = causal, stride
        self.projections = QueryKeyValue(width=width, heads=heads, kv_heads=kv_heads, rope=rope, qk_norm=qk_norm)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Attend from each token to the latest ones and to its column."""
        q, k, v = self.projections(x)
        return self.out(join_heads(strided_attention(q, k, v, self.stride, causal=self.causal)))

    def attention(self, x: Float[Tensor, "b t d"], at: Int[Tensor, " n"]) -> Float[Tensor, "b h n t"]:
        """Return how much the tokens at some positions read of each token."""
        q, k, _ = self.projections(x)
        visible = strided_mask(at, torch.arange(x.shape[1], device=x.device), self.stride, causal=self.causal)
        return attention_weights(q[:, :, at], k, visible)

    def initial_state(self, batch: int, like: Tensor) -> KeyValues:
        """Return no keys and no values. Each past token will be seen again, so all are kept."""
        return self.projections.no_past(batch, like)

    def extend(self, x: Float[Tensor, "b n d"], state: KeyValues) -> tuple[Float[Tensor, "b n d"], KeyValues]:
        """Attend from each new token to the past and to the piece up to itself."""
        q, k, v = self.projections(x, state.past)
        state = state.and_then(k, v)
        return self.out(join_heads(strided_attention(q, *state.like(q), self.stride))), state
