"""Softmax attention to a window of the latest tokens."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hybridlab.mixers.base import Mixer, check_counts
from hybridlab.mixers.projections import QueryKeyValue, join_heads
from hybridlab.ops.sliding_attention import sliding_attention


class SlidingState(NamedTuple):
    """The keys (turned to their positions) and values of the last window-1 tokens, and how many tokens there were."""

    keys: Float[Tensor, "b g past k"]
    values: Float[Tensor, "b g past k"]
    position: Int[Tensor, "b 1"]


class Sliding(Mixer):
    """o_t = Σ_{t-window<j≤t} softmax_j(q_t·k_j / √k) v_j: a token sees itself and the window-1 before it.

    Keys and values may be shared by groups of heads (`kv_heads`); positions are rotary, or none (`rope` null).
    """

    kind = "sparse"
    paper = "Beltagy et al. 2020 (Longformer), 2004.05150"
    bounded_state = True

    def __init__(
        self,
        *,
        width: int,
        heads: int = 4,
        kv_heads: int | None = None,
        window: int = 256,
        rope: float | None = 10000.0,
    ) -> None:
        super().__init__()
        check_counts(window=window)
        self.window = window
        self.projections = QueryKeyValue(width=width, heads=heads, kv_heads=kv_heads, rope=rope)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Attend from each token to its window."""
        q, k, v = self.projections(x)
        return self.out(join_heads(sliding_attention(q, k, v, self.window)))

    def initial_state(self, batch: int, like: Tensor) -> SlidingState:
        """Return no keys and no values, at position 0."""
        empty = like.new_empty(batch, self.projections.kv_heads, 0, self.projections.head_width)
        return SlidingState(empty, empty, torch.zeros(batch, 1, dtype=torch.long, device=like.device))

    def extend(self, x: Float[Tensor, "b n d"], state: SlidingState) -> tuple[Float[Tensor, "b n d"], SlidingState]:
        """Attend from each new token to its window, which may begin before the piece."""
        q, k, v = self.projections(x, state.position)
        keys = torch.cat([state.keys, k.to(state.keys.dtype)], dim=2)
        values = torch.cat([state.values, v.to(state.values.dtype)], dim=2)
        o = sliding_attention(q, keys.to(q.dtype), values.to(q.dtype), self.window)
        forgotten = max(keys.shape[2] - self.window + 1, 0)
        keys, values = keys[:, :, forgotten:].clone(), values[:, :, forgotten:].clone()
        return self.out(join_heads(o)), SlidingState(keys, values, state.position + x.shape[1])
