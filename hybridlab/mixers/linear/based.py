"""Based: linear attention with a Taylor polynomial of the exponential."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.parts.projections import join_heads, split_heads
from hybridlab.ops.linear.taylor_attention import (
    bidirectional_taylor_attention,
    chunked_taylor_attention,
    num_taylor_features,
)
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.validate import divides, whole


class BasedState(NamedTuple):
    """Σ φ(k) [v, 1]ᵀ over the past: the numerator, and the denominator as the last column."""

    sums: Float[Tensor, "b h f v+1"]


class Based(Mixer):
    """o_t = Σ_{j≤t} w_tj v_j / Σ_{j≤t} w_tj with w_tj = 1 + s + s²/2 ≈ exp(s), s = q_t·k_j / √d.

    d is `feature_width`. Queries and keys are narrow because the state grows with d². The
    bidirectional form sums over all j. This is the paper's linear layer; its sliding windows and
    short convolutions are separate mixers of a stack.
    """

    kind = "linear"
    paper = "Arora et al. 2024, 2402.18668"
    bounded_state = True
    free_sizes = ("feature_width",)

    def __init__(
        self, *, width: int, heads: int = 4, feature_width: int = 16, chunk: int = 128, causal: bool = True
    ) -> None:
        super().__init__()
        whole(heads=heads, feature_width=feature_width, chunk=chunk)
        divides(width, "the width", heads=heads)
        self.heads, self.feature_width, self.chunk, self.causal = heads, feature_width, chunk, causal
        self.head_width = width // heads
        self.query = nn.Linear(width, heads * feature_width, bias=False)
        self.key = nn.Linear(width, heads * feature_width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences: in chunks if causal, else in one sum."""
        if self.causal:
            return self._mix(x, None)[0]
        return self.out(join_heads(bidirectional_taylor_attention(*self._project(x))))

    def initial_state(self, batch: int, like: Tensor) -> BasedState:
        """Return zero sums."""
        shape = (batch, self.heads, num_taylor_features(self.feature_width), self.head_width + 1)
        return BasedState(like.new_zeros(shape, dtype=accumulation_dtype(like)))

    def extend(self, x: Float[Tensor, "b n d"], state: BasedState) -> tuple[Float[Tensor, "b n d"], BasedState]:
        """Add the chunk to the sums, and read them at each of its tokens."""
        y, sums = self._mix(x, state.sums)
        return y, BasedState(sums.clone())

    def _mix(self, x: Tensor, sums: Tensor | None) -> tuple[Tensor, Tensor]:
        o, sums = chunked_taylor_attention(*self._project(x), sums, self.chunk)
        return self.out(join_heads(o)), sums

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k = (split_heads(project(x), self.feature_width) for project in (self.query, self.key))
        return q, k, split_heads(self.value(x), self.head_width)
