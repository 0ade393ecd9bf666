"""Softmax attention to a window with gaps."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.parts.key_values import KeyValues
from hybridlab.mixers.parts.projections import QueryKeyValue, join_heads
from hybridlab.ops.attention.attention_weights import attention_weights
from hybridlab.ops.attention.dilated_attention import dilated_attention, dilated_mask
from hybridlab.validate import whole


class DilatedState(NamedTuple):
    """The keys (turned to their positions) and values of the last dilation·(window-1) tokens; how many tokens there were.

    It always has its full length: before there were so many tokens, it begins with zeros that nobody sees.
    """

    keys: Float[Tensor, "b g dilation*(window-1) k"]
    values: Float[Tensor, "b g dilation*(window-1) k"]
    position: Int[Tensor, "b 1"]


class Dilated(Mixer):
    """o_t = Σ_j softmax_j(q_t·k_j / √k) v_j over j = t, t - dilation, t - 2·dilation, …: `window` tokens in all.

    Tokens whose positions differ by no multiple of `dilation` never meet in this layer. Bidirectional: the window reaches
    as far ahead as behind, |t-j| < dilation·window. Keys and values may be shared by groups of heads (`kv_heads`);
    positions are rotary, or none (`rope` null).
    """

    kind = "sparse"
    paper = "Beltagy et al. 2020 (Longformer), 2004.05150"
    bounded_state = True
    free_sizes = ("window",)

    def __init__(
        self,
        *,
        width: int,
        causal: bool = True,
        heads: int = 4,
        kv_heads: int | None = None,
        window: int = 128,
        dilation: int = 4,
        rope: float | None = 10000.0,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        whole(window=window, dilation=dilation)
        self.causal, self.window, self.dilation = causal, window, dilation
        self.projections = QueryKeyValue(width=width, heads=heads, kv_heads=kv_heads, rope=rope, qk_norm=qk_norm)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Attend from each token to every `dilation`-th of its window."""
        q, k, v = self.projections(x)
        return self.out(join_heads(dilated_attention(q, k, v, self.window, self.dilation, causal=self.causal)))

    def attention(self, x: Float[Tensor, "b t d"], at: Int[Tensor, " n"]) -> Float[Tensor, "b h n t"]:
        """Return how much the tokens at some positions read of each token."""
        q, k, _ = self.projections(x)
        visible = dilated_mask(
            at, torch.arange(x.shape[1], device=x.device), self.window, self.dilation, causal=self.causal
        )
        return attention_weights(q[:, :, at], k, visible)

    def initial_state(self, batch: int, like: Tensor) -> DilatedState:
        """Return keys and values of zero, at position 0."""
        length = self.dilation * (self.window - 1)
        zeros = like.new_zeros(batch, self.projections.kv_heads, length, self.projections.head_width)
        return DilatedState(zeros, zeros, torch.zeros(batch, 1, dtype=torch.long, device=like.device))

    def extend(self, x: Float[Tensor, "b n d"], state: DilatedState) -> tuple[Float[Tensor, "b n d"], DilatedState]:
        """Attend from each new token to its window, which may begin before the piece."""
        length, n = state.keys.shape[2], x.shape[1]
        q, k, v = self.projections(x, state.position)
        past = KeyValues(state.keys, state.values).and_then(k, v)
        k, v = past.like(q)
        missing = (length - state.position[:, 0]).clamp(min=0)
        o = dilated_attention(q, k, v, self.window, self.dilation, missing=missing)
        keys, values = (each[:, :, n:].clone() for each in past)
        return self.out(join_heads(o)), DilatedState(keys, values, state.position + n)
