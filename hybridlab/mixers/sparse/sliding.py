"""Softmax attention to a window of the latest tokens."""

from typing import NamedTuple, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hybridlab.mixers.parts.key_values import KeyValues
from hybridlab.mixers.parts.softmax_attention import SharedSettings, SoftmaxAttention
from hybridlab.ops.attention.sliding_attention import sliding_attention, sliding_mask
from hybridlab.validate import whole


class SlidingState(NamedTuple):
    """Rotated keys and values of global and last window-1 tokens; the past length."""

    keys: Float[Tensor, "b g past k"]
    values: Float[Tensor, "b g past k"]
    position: Int[Tensor, "b 1"]


class Sliding(SoftmaxAttention):
    """o_t = Σ_{t-window<j≤t} softmax_j(q_t·k_j / √k) v_j.

    A token sees itself and the window-1 tokens before it. All later tokens also see the first
    `global_tokens` of the sequence (StreamingLLM, 2309.17453). Bidirectional: the window reaches as
    far ahead as back, |t-j| < window, and the global tokens see all tokens and are seen by all,
    which is Longformer's global attention with the projections of the local one. Positions are
    absolute: the distance from the window to the global tokens includes the tokens that are dropped
    between them.
    """

    kind = "sparse"
    paper = "Beltagy et al. 2020 (Longformer), 2004.05150"
    bounded_state = True
    free_sizes = ("window",)

    def __init__(self, *, window: int = 256, global_tokens: int = 0, **shared: Unpack[SharedSettings]) -> None:
        super().__init__(**shared)
        whole(window=window)
        whole(least=0, global_tokens=global_tokens)
        self.window, self.global_tokens = window, global_tokens

    def initial_state(self, batch: int, like: Tensor) -> SlidingState:
        """Return empty keys and values at position 0."""
        empty = self.projections.no_past(batch, like)
        return SlidingState(*empty, torch.zeros(batch, 1, dtype=torch.long, device=like.device))

    def extend(self, x: Float[Tensor, "b n d"], state: SlidingState) -> tuple[Float[Tensor, "b n d"], SlidingState]:
        """Attend from each new token to its window and to the global tokens."""
        q, k, v = self.projections(x, state.position)
        past = KeyValues(state.keys, state.values).and_then(k, v)
        k, v = past.like(q)
        o = sliding_attention(q, k, v, self.window, global_tokens=self.global_tokens)
        keys, values = (self._keep(each) for each in past)
        return self._write(o), SlidingState(keys, values, state.position + x.shape[1])

    def _attend(
        self, q: Float[Tensor, "b h t k"], k: Float[Tensor, "b g t k"], v: Float[Tensor, "b g t k"]
    ) -> Float[Tensor, "b t d"]:
        return self._write(
            sliding_attention(q, k, v, self.window, causal=self.causal, global_tokens=self.global_tokens)
        )

    def _visible(self, at: Int[Tensor, " n"], keys: Int[Tensor, " t"]) -> Bool[Tensor, "n t"]:
        return sliding_mask(at, keys, self.window, causal=self.causal, global_tokens=self.global_tokens)

    def _keep(self, past: Float[Tensor, "b g past k"]) -> Float[Tensor, "b g kept k"]:
        """Drop the tokens between the global ones and the window of the next token."""
        # The kept tokens are contiguous: the global ones are the first keys, the window the last.
        rest = max(past.shape[2] - self.window + 1, self.global_tokens)
        return torch.cat([past[:, :, : self.global_tokens], past[:, :, rest:]], dim=2)
