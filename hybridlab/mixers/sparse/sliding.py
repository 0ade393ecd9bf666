"""Softmax attention to a window of the latest tokens."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.parts.key_values import KeyValues
from hybridlab.mixers.parts.projections import QueryKeyValue, join_heads
from hybridlab.ops.attention.attention_weights import attention_weights
from hybridlab.ops.attention.sliding_attention import sliding_attention, sliding_mask
from hybridlab.validate import whole


class SlidingState(NamedTuple):
    """The keys (turned to their positions) and values of the sinks and the last window-1 tokens; how many tokens there were."""

    keys: Float[Tensor, "b g past k"]
    values: Float[Tensor, "b g past k"]
    position: Int[Tensor, "b 1"]


class Sliding(Mixer):
    """o_t = Σ_{t-window<j≤t} softmax_j(q_t·k_j / √k) v_j: a token sees itself and the window-1 before it.

    The first `global_tokens` tokens of a row are seen by all after them (StreamingLLM, 2309.17453). Bidirectional: the window
    reaches as far ahead as behind, |t-j| < window, and the sinks are seen by all tokens and see all tokens, which is
    Longformer's global attention, here with the projections of the local one. Positions are absolute: what lies between
    the sinks and the window still counts. They are rotary, or none (`rope` null). Keys and values may be shared by groups
    of heads (`kv_heads`).
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
        window: int = 256,
        global_tokens: int = 0,
        rope: float | None = 10000.0,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        whole(window=window)
        whole(least=0, global_tokens=global_tokens)
        self.causal, self.window, self.global_tokens = causal, window, global_tokens
        self.projections = QueryKeyValue(width=width, heads=heads, kv_heads=kv_heads, rope=rope, qk_norm=qk_norm)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Attend from each token to its window and to the sinks."""
        q, k, v = self.projections(x)
        return self.out(
            join_heads(sliding_attention(q, k, v, self.window, causal=self.causal, sinks=self.global_tokens))
        )

    def attention(self, x: Float[Tensor, "b t d"], at: Int[Tensor, " n"]) -> Float[Tensor, "b h n t"]:
        """Return how much the tokens at some positions read of each token."""
        q, k, _ = self.projections(x)
        visible = sliding_mask(
            at, torch.arange(x.shape[1], device=x.device), self.window, causal=self.causal, sinks=self.global_tokens
        )
        return attention_weights(q[:, :, at], k, visible)

    def initial_state(self, batch: int, like: Tensor) -> SlidingState:
        """Return no keys and no values, at position 0."""
        empty = self.projections.no_past(batch, like)
        return SlidingState(*empty, torch.zeros(batch, 1, dtype=torch.long, device=like.device))

    def extend(self, x: Float[Tensor, "b n d"], state: SlidingState) -> tuple[Float[Tensor, "b n d"], SlidingState]:
        """Attend from each new token to its window, which may begin before the piece, and to the sinks."""
        q, k, v = self.projections(x, state.position)
        past = KeyValues(state.keys, state.values).and_then(k, v)
        k, v = past.like(q)
        o = sliding_attention(q, k, v, self.window, sinks=self.global_tokens)
        keys, values = (self._keep(each) for each in past)
        return self.out(join_heads(o)), SlidingState(keys, values, state.position + x.shape[1])

    def _keep(self, past: Float[Tensor, "b g past k"]) -> Float[Tensor, "b g kept k"]:
        """Drop what is between the sinks and the window of the next token."""
        # What is kept lies side by side: to the next tokens the sinks are the first keys, and the window the last ones.
        rest = max(past.shape[2] - self.window + 1, self.global_tokens)
        return torch.cat([past[:, :, : self.global_tokens], past[:, :, rest:]], dim=2)
