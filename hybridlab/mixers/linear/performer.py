"""Performer (FAVOR+): linear attention with random features of the softmax kernel."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.parts.projections import QueryKeyValue, join_heads
from hybridlab.ops.linear.log_feature_attention import (
    bidirectional_log_feature_attention,
    chunked_log_feature_attention,
)
from hybridlab.ops.linear.random_features import draw_orthogonal_directions, log_positive_features
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.validate import whole


class PerformerState(NamedTuple):
    """Σ φ(k) [v, 1]ᵀ over the past, divided by its largest feature, and the logarithm of that."""

    sums: Float[Tensor, "b h f v+1"]
    peak: Float[Tensor, "b h"]


class Performer(Mixer):
    """o_t = Σ_{j≤t} φ(q_t)·φ(k_j) v_j / Σ_{j≤t} φ(q_t)·φ(k_j).

    With φ_i(x) = exp(w_i·y - ‖y‖²/2) / √f and y = x / k^¼, φ(q)·φ(k) is an unbiased estimate of
    softmax attention's exp(q·k / √k). The f directions w_i are Gaussian and orthogonal in blocks;
    they are drawn once and saved with the weights; the authors draw them anew during training. The
    bidirectional form sums over all j.
    """

    kind = "linear"
    paper = "Choromanski et al. 2020, 2009.14794"
    bounded_state = True
    free_sizes = ("features",)

    directions: Tensor

    def __init__(
        self, *, width: int, heads: int = 4, features: int | None = None, chunk: int = 64, causal: bool = True
    ) -> None:
        super().__init__()
        whole(chunk=chunk)
        self.chunk, self.causal = chunk, causal
        self.projections = QueryKeyValue(width=width, heads=heads)
        k = self.projections.head_width
        features = _recommended(k) if features is None else features
        whole(features=features)
        self.features = features
        self.register_buffer("directions", draw_orthogonal_directions(features, k))
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences: in chunks if causal, else in one sum."""
        q, k, v = self._features(x)
        if self.causal:
            return self._write(chunked_log_feature_attention(q, k, v, None, self.chunk)[0])
        return self._write(bidirectional_log_feature_attention(q, k, v))

    def initial_state(self, batch: int, like: Tensor) -> PerformerState:
        """Return zero sums without a scale yet."""
        h, k = self.projections.kv_heads, self.projections.head_width
        sums = like.new_zeros(batch, h, len(self.directions), k + 1, dtype=accumulation_dtype(like))
        return PerformerState(sums, torch.full_like(sums[:, :, 0, 0], -torch.inf))

    def extend(self, x: Float[Tensor, "b n d"], state: PerformerState) -> tuple[Float[Tensor, "b n d"], PerformerState]:
        """Add the chunk to the sums, and read them at each of its tokens."""
        q, k, v = self._features(x)
        o, sums, peak = chunked_log_feature_attention(q, k, v, (state.sums, state.peak), self.chunk)
        return self._write(o), PerformerState(sums.clone(), peak.clone())

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.projections(x)
        return log_positive_features(q, self.directions), log_positive_features(k, self.directions), v

    def _write(self, o: Tensor) -> Tensor:
        return self.out(join_heads(o))


def _recommended(k: int) -> int:
    """Return about k·log k, the number of features in the paper's bound, as a multiple of 16."""
    return 16 * max(1, round(k * math.log(k) / 16))
