"""Softmax attention to a window with gaps."""

from typing import NamedTuple, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hybridlab.mixers.parts.key_values import KeyValues
from hybridlab.mixers.parts.softmax_attention import SharedSettings, SoftmaxAttention
from hybridlab.ops.attention.dilated_attention import dilated_attention, dilated_mask
from hybridlab.validate import whole


class DilatedState(NamedTuple):
    """Rotated keys and values of the last l = dilation·(window-1) tokens; the past length.

    Its length is fixed: before there are l past tokens, it starts with zeros, which no token sees.
    """

    keys: Float[Tensor, "b g l k"]
    values: Float[Tensor, "b g l k"]
    position: Int[Tensor, "b 1"]


class Dilated(SoftmaxAttention):
    """o_t = Σ_j softmax_j(q_t·k_j / √k) v_j over the `window` tokens j = t, t - dilation, ….

    Tokens whose distance is no multiple of `dilation` never see each other in this layer.
    Bidirectional: the window reaches as far ahead as back, |t-j| < dilation·window.
    """

    kind = "sparse"
    paper = "Beltagy et al. 2020 (Longformer), 2004.05150"
    bounded_state = True
    free_sizes = ("window",)

    def __init__(self, *, window: int = 128, dilation: int = 4, **shared: Unpack[SharedSettings]) -> None:
        super().__init__(**shared)
        whole(window=window, dilation=dilation)
        self.window, self.dilation = window, dilation

    def initial_state(self, batch: int, like: Tensor) -> DilatedState:
        """Return zero keys and values at position 0."""
        length = self.dilation * (self.window - 1)
        zeros = like.new_zeros(batch, self.projections.kv_heads, length, self.projections.head_width)
        return DilatedState(zeros, zeros, torch.zeros(batch, 1, dtype=torch.long, device=like.device))

    def extend(self, x: Float[Tensor, "b n d"], state: DilatedState) -> tuple[Float[Tensor, "b n d"], DilatedState]:
        """Attend from each new token to its window, which may start before the chunk."""
        length, n = state.keys.shape[2], x.shape[1]
        q, k, v = self.projections(x, state.position)
        past = KeyValues(state.keys, state.values).and_then(k, v)
        k, v = past.like(q)
        missing = (length - state.position[:, 0]).clamp(min=0)
        o = dilated_attention(q, k, v, self.window, self.dilation, missing=missing)
        keys, values = (each[:, :, n:].clone() for each in past)
        return self._write(o), DilatedState(keys, values, state.position + n)

    def _attend(
        self, q: Float[Tensor, "b h t k"], k: Float[Tensor, "b g t k"], v: Float[Tensor, "b g t k"]
    ) -> Float[Tensor, "b t d"]:
        return self._write(dilated_attention(q, k, v, self.window, self.dilation, causal=self.causal))

    def _visible(self, at: Int[Tensor, " n"], keys: Int[Tensor, " t"]) -> Bool[Tensor, "n t"]:
        return dilated_mask(at, keys, self.window, self.dilation, causal=self.causal)
