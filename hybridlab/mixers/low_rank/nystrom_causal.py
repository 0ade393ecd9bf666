"""Causal attention through landmarks."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.parts.projections import QueryKeyValue, join_heads
from hybridlab.ops.attention.streaming_nystrom_attention import NystromPast, extend_streaming_nystrom, streaming_nystrom
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.validate import number, whole

# In float32 a smaller ridge would be lost to rounding when it is added to the kernel matrix.
SMALLEST_RIDGE = 1e-5


class NystromCausal(Mixer):
    """Softmax attention, exact in a token's own and previous block, by Nyström's method before.

    With κ(a, b) = exp(a·b / √k), far keys j in blocks up to n-2 for a query i in block n, and L_j
    the mean keys of the first blocks up to and including that of j, at most `landmarks` of them:
    o_i = (Σ_near κ(q_i, k_j) v_j + Σ_far w_ij v_j) / (Σ_near κ(q_i, k_j) + Σ_far w_ij),
    w_ij = κ(q_i, L_j) (κ(L_j, L_j) + ridge·I)⁻¹ κ(L_j, k_j). Landmarks enter κ scaled by
    exp(-‖L‖² / 2√k), so that κ(L_j, L_j) has a diagonal of 1. The w_ij can be negative: their sum
    counts as at least 1/20 of that of the absolute values of their terms.

    This form is in no paper. Nyströmformer normalises the rows of each factor, but a row of its
    third factor depends on all keys, so the kernel is left unnormalised here. Queries and keys are
    scaled to a root mean square of 1, which bounds every exponent by √k without a maximum over
    later tokens. There are no positions: a mean of rotated keys would be no landmark. The landmarks
    are those of the first `landmarks` blocks and do not change: later tokens unlike all of them are
    seen only while they are near.
    """

    kind = "low-rank"
    paper = "a causal form of Xiong et al. 2021, 2102.03902"
    bounded_state = True
    free_sizes = ("landmarks",)

    def __init__(
        self, *, width: int, heads: int = 4, block: int = 64, landmarks: int = 32, ridge: float = 1e-3
    ) -> None:
        super().__init__()
        whole(block=block, landmarks=landmarks)
        number(least=SMALLEST_RIDGE, ridge=ridge)
        self.block, self.landmarks, self.ridge = block, landmarks, ridge
        self.projections = QueryKeyValue(width=width, heads=heads)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Attend from each token to its window, and through the landmarks to all before it."""
        o = streaming_nystrom(*self._project(x), self.block, self.landmarks, self.ridge)
        return self.out(join_heads(o))

    def initial_state(self, batch: int, like: Tensor) -> NystromPast:
        """Return a zero window, landmarks and sums at position 0."""
        heads, width, dtype = self.projections.kv_heads, self.projections.head_width, accumulation_dtype(like)
        window = like.new_zeros(batch, heads, 2 * self.block - 1, width)
        return NystromPast(
            window,
            window.clone(),
            torch.zeros(batch, 1, dtype=torch.long, device=like.device),
            like.new_zeros(batch, heads, self.landmarks, width, dtype=dtype),
            like.new_zeros(batch, heads, self.landmarks, width + 2, dtype=dtype),
        )

    def extend(self, x: Float[Tensor, "b n d"], state: NystromPast) -> tuple[Float[Tensor, "b n d"], NystromPast]:
        """Attend from each new token, and add the blocks that leave the window to the sums."""
        o, state = extend_streaming_nystrom(*self._project(x), state, self.ridge)
        return self.out(join_heads(o)), state

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.projections(x)
        q, k = (F.rms_norm(each, each.shape[-1:], eps=1e-6).to(v.dtype) for each in (q, k))
        return q, k, v
