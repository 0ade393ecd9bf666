"""Softmax attention to the latest tokens and to every `stride`-th token before them."""

from typing import Unpack

from jaxtyping import Bool, Float, Int
from torch import Tensor

from hybridlab.mixers.parts.softmax_attention import CachedAttention, SharedSettings
from hybridlab.ops.attention.strided_attention import strided_attention, strided_mask
from hybridlab.validate import whole


class Strided(CachedAttention):
    """o_t = Σ_j softmax_j(q_t·k_j / √k) v_j over j ≤ t with t-j < stride or (t-j) mod stride = 0.

    The strided pattern of Sparse Transformers, with both of its parts in each head: in two layers
    any token reaches any earlier one. Bidirectional: |t-j| in place of t-j. Every past token will
    be seen again, so decoding keeps all of them.
    """

    kind = "sparse"
    paper = "Child et al. 2019, 1904.10509"
    bounded_state = False

    def __init__(self, *, stride: int = 128, **shared: Unpack[SharedSettings]) -> None:
        super().__init__(**shared)
        whole(stride=stride)
        self.stride = stride

    def _attend(
        self, q: Float[Tensor, "b h n k"], k: Float[Tensor, "b g t k"], v: Float[Tensor, "b g t k"]
    ) -> Float[Tensor, "b n d"]:
        return self._write(strided_attention(q, k, v, self.stride, causal=self.causal))

    def _visible(self, at: Int[Tensor, " n"], keys: Int[Tensor, " t"]) -> Bool[Tensor, "n t"]:
        return strided_mask(at, keys, self.stride, causal=self.causal)
