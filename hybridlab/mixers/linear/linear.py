"""Linear attention."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.parts.feature_maps import build_feature_map
from hybridlab.mixers.parts.projections import QueryKeyValue, join_heads
from hybridlab.ops.linear.bidirectional_linear_attention import bidirectional_linear_attention
from hybridlab.ops.linear.linear_attention import chunked_linear_attention
from hybridlab.ops.linear.normalised_attention import bidirectional_normalised_attention, chunked_normalised_attention
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.validate import whole


class LinearState(NamedTuple):
    """Σ φ(k) [v, 1]ᵀ over the past: numerator and, with `normalise`, denominator (last column)."""

    sums: Float[Tensor, "b h f v"]


class Linear(Mixer):
    """o_t = Σ_{j≤t} φ(q_t)·φ(k_j) v_j / Σ_{j≤t} φ(q_t)·φ(k_j).

    φ(x) is elu(x) + 1 or another `feature_map`. With `normalise` false there is no denominator,
    whose gradient is unbounded: instead, each head's output is divided by its root mean square
    (TransNormer, Qin et al. 2022, 2210.10340). The bidirectional form sums over all j.
    """

    kind = "linear"
    paper = "Katharopoulos et al. 2020, 2006.16236"
    bounded_state = True

    def __init__(
        self,
        *,
        width: int,
        heads: int = 4,
        feature_map: str = "elu",
        normalise: bool = True,
        chunk: int | None = None,
        causal: bool = True,
    ) -> None:
        super().__init__()
        whole(chunk=chunk, null="the fastest on the device")
        self.chunk, self.normalise, self.causal = chunk, normalise, causal
        self.projections = QueryKeyValue(width=width, heads=heads)
        self.query_features = build_feature_map(feature_map, heads=heads, width=self.projections.head_width)
        self.key_features = build_feature_map(feature_map, heads=heads, width=self.projections.head_width)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences: in chunks if causal, else in one sum."""
        if self.causal:
            return self._mix(x, None)[0]
        q, k, v = self._features(x)
        attend = bidirectional_normalised_attention if self.normalise else bidirectional_linear_attention
        return self._write(attend(q, k, v))

    def initial_state(self, batch: int, like: Tensor) -> LinearState:
        """Return zero sums."""
        h, k = self.projections.kv_heads, self.projections.head_width
        shape = (batch, h, self.key_features.features, k + 1 if self.normalise else k)
        return LinearState(like.new_zeros(shape, dtype=accumulation_dtype(like)))

    def extend(self, x: Float[Tensor, "b n d"], state: LinearState) -> tuple[Float[Tensor, "b n d"], LinearState]:
        """Add the chunk to the sums, and read them at each of its tokens."""
        y, sums = self._mix(x, state.sums)
        return y, LinearState(sums.clone())

    def _mix(self, x: Tensor, sums: Tensor | None) -> tuple[Tensor, Tensor]:
        q, k, v = self._features(x)
        attend = chunked_normalised_attention if self.normalise else chunked_linear_attention
        o, sums = attend(q, k, v, state=sums, chunk=self.chunk)
        return self._write(o), sums

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.projections(x)
        return self.query_features(q), self.key_features(k), v

    def _write(self, o: Tensor) -> Tensor:
        return self.out(join_heads(o if self.normalise else F.rms_norm(o, o.shape[-1:], eps=1e-5)))
