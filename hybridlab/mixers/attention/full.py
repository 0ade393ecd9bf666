"""Full softmax attention."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hybridlab.mixers.parts.key_values import KeyValues
from hybridlab.mixers.parts.softmax_attention import CachedAttention
from hybridlab.ops.attention.fused_attention import fused_attention


class Full(CachedAttention):
    """o_t = Σ_{j≤t} softmax_j(q_t·k_j / √k) v_j in each head; bidirectional: the sum over all j."""

    kind = "full"
    paper = "Vaswani et al. 2017, 1706.03762"
    bounded_state = False

    def extend(self, x: Float[Tensor, "b n d"], state: KeyValues) -> tuple[Float[Tensor, "b n d"], KeyValues]:
        """Attend from each new token to the past and to the chunk up to itself."""
        past, n = state.past, x.shape[1]
        q, k, v = self.projections(x, past)
        state = state.and_then(k, v)
        # `is_causal` aligns the first query with the first key, but these queries stand at the last
        # keys. A single query sees all keys.
        mask = None if n == 1 else torch.ones(n, past + n, dtype=torch.bool, device=x.device).tril(past)
        return self._write(fused_attention(q, *state.like(q), mask)), state

    def _attend(
        self, q: Float[Tensor, "b h t k"], k: Float[Tensor, "b g t k"], v: Float[Tensor, "b g t k"]
    ) -> Float[Tensor, "b t d"]:
        return self._write(fused_attention(q, k, v, causal=self.causal))

    def _visible(self, at: Int[Tensor, " n"], keys: Int[Tensor, " t"]) -> Bool[Tensor, "n t"]:
        return (keys <= at[:, None]) | (not self.causal)
