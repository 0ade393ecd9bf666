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

# In float32 a smaller one would be lost in the rounding of the kernel that it is added to.
SMALLEST_RIDGE = 1e-5


class NystromCausal(Mixer):
    """Softmax attention, exact over a token's own and previous block, approximated by Nyström's method before these.

    With κ(a, b) = exp(a·b / √k), keys j of blocks up to n-2, and L_j the mean keys of the first blocks up to that of j
    (at most `landmarks` of them, where the block's own may be one):
    o_i = (Σ_near κ(q_i, k_j) v_j + Σ_far w_ij v_j) / (Σ_near κ(q_i, k_j) + Σ_far w_ij),
    w_ij = κ(q_i, L_j) (κ(L_j, L_j) + ridge·I)⁻¹ κ(L_j, k_j).

    No paper has this form. The kernel is not normalised by rows, as the paper's is, because each row of its third
    factor depends on all keys. Queries and keys are scaled to a root mean square of 1, which bounds every exponent by √k
    without a maximum that looks ahead. There are no positions: a mean of turned keys would be no landmark. The landmarks
    come from the first `landmarks` blocks and then stay: what is unlike all of them later is seen only while it is near.
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
        """Attend from each token to its window and to the landmarks' sums of what is before it."""
        o = streaming_nystrom(*self._project(x), self.block, self.landmarks, self.ridge)
        return self.out(join_heads(o))

    def initial_state(self, batch: int, like: Tensor) -> NystromPast:
        """Return a window, landmarks and sums of zero, at position 0."""
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
        """Attend from each new token, and sum up the blocks that leave the window."""
        o, state = extend_streaming_nystrom(*self._project(x), state, self.ridge)
        return self.out(join_heads(o)), state

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.projections(x)
        q, k = (F.rms_norm(each, each.shape[-1:], eps=1e-6).to(v.dtype) for each in (q, k))
        return q, k, v
