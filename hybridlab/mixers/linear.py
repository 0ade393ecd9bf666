"""Linear attention."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer, check_counts
from hybridlab.mixers.projections import QueryKeyValue, join_heads
from hybridlab.ops.linear_attention import chunked_linear_attention
from hybridlab.ops.precision import accumulation_dtype

# Far below any sum of features that matters: it keeps a sum that is exactly zero from being divided by.
EPSILON = 1e-10


class LinearState(NamedTuple):
    """Σ φ(k) [v, 1]ᵀ over the past: the numerator of every query, and its normaliser as the last column."""

    sums: Float[Tensor, "b h k k+1"]


class Linear(Mixer):
    """o_t = Σ_{j≤t} φ(q_t)·φ(k_j) v_j / Σ_{j≤t} φ(q_t)·φ(k_j), with φ(x) = elu(x) + 1."""

    kind = "linear"
    paper = "Katharopoulos et al. 2020, 2006.16236"
    bounded_state = True

    def __init__(self, *, width: int, heads: int = 4, chunk: int = 64) -> None:
        super().__init__()
        check_counts(chunk=chunk)
        self.chunk = chunk
        self.projections = QueryKeyValue(width=width, heads=heads)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix a whole row in chunks."""
        return self._mix(x, None)[0]

    def initial_state(self, batch: int, like: Tensor) -> LinearState:
        """Return sums of zero."""
        k = self.projections.head_width
        return LinearState(like.new_zeros(batch, self.projections.kv_heads, k, k + 1, dtype=accumulation_dtype(like)))

    def extend(self, x: Float[Tensor, "b n d"], state: LinearState) -> tuple[Float[Tensor, "b n d"], LinearState]:
        """Add the piece to the sums, and read them at each of its tokens."""
        y, sums = self._mix(x, state.sums)
        return y, LinearState(sums.clone())

    def _mix(self, x: Tensor, sums: Tensor | None) -> tuple[Tensor, Tensor]:
        q, k, v = self.projections(x)
        # One more column of ones makes the normaliser a part of the same sum.
        v = F.pad(v, (0, 1), value=1.0)
        o, sums = chunked_linear_attention(_features(q), _features(k), v, None, sums, self.chunk)
        return self.out(join_heads(o[..., :-1] / (o[..., -1:] + EPSILON))), sums


def _features(x: Tensor) -> Tensor:
    """Return elu(x) + 1 without the rounding of a sum that ends near zero."""
    # Autocast takes exponentials in float32.
    return (torch.relu(x) + x.clamp(max=0).exp()).to(x.dtype)
