"""DeltaNet: linear attention that replaces what its state returns for a key."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.projections import join_heads, split_heads
from hybridlab.mixers.parts.short_convolution import ShortConvolution
from hybridlab.ops.linear.delta_rule import chunked_delta_rule, l2_normalise
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.validate import divides, whole


class DeltaState(NamedTuple):
    """The last inputs of the short convolution, and the state of each head."""

    inputs: Float[Tensor, "b l-1 3*d"]
    state: Float[Tensor, "b h k k"]


class Delta(Mixer):
    """S_t = S_{t-1} + β_t k_t (v_t - S_{t-1}ᵀ k_t)ᵀ, o_t = S_tᵀ q_t; then an RMS norm of each head and a linear map.

    Queries, keys and values pass a short convolution and SiLU; then queries and keys have length 1. β = σ of a linear
    map, or 2σ with `negative_eigenvalues`, so that I - β k kᵀ can also reflect (2411.12537).
    """

    kind = "linear"
    paper = "Yang et al. 2024, 2406.06484"
    bounded_state = True

    def __init__(
        self,
        *,
        width: int,
        heads: int = 4,
        conv_size: int = 4,
        negative_eigenvalues: bool = False,
        gate: bool = False,
        chunk: int = 64,
    ) -> None:
        super().__init__()
        whole(heads=heads, conv_size=conv_size, chunk=chunk)
        divides(width, "the width", heads=heads)
        self.head_width, self.chunk = width // heads, chunk
        self.strongest = 2 if negative_eigenvalues else 1
        self.in_projection = nn.Linear(width, 3 * width, bias=False)
        self.convolution = ShortConvolution(width=3 * width, conv_size=conv_size, bias=False)
        self.strength = nn.Linear(width, heads, bias=False)
        self.gate = nn.Linear(width, width, bias=False) if gate else None
        self.norm = tag(nn.Parameter(torch.ones(self.head_width)), decay=False, initialise=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix a whole row in chunks."""
        return self._mix(x, None, None)[0]

    def initial_state(self, batch: int, like: Tensor) -> DeltaState:
        """Return inputs and states of zero."""
        shape = (batch, self.strength.out_features, self.head_width, self.head_width)
        return DeltaState(
            self.convolution.empty_past(batch, like), like.new_zeros(shape, dtype=accumulation_dtype(like))
        )

    def extend(self, x: Float[Tensor, "b n d"], state: DeltaState) -> tuple[Float[Tensor, "b n d"], DeltaState]:
        """Carry the recurrence on through the piece."""
        y, inputs, last = self._mix(x, state.inputs, state.state)
        return y, DeltaState(inputs, last)

    def _mix(self, x: Tensor, past: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        mixed, inputs = self.convolution(self.in_projection(x), past)
        # Contiguous: a convolution's output may lie channels first, and SiLU's gradient is slow across two layouts.
        q, k, v = (split_heads(each, self.head_width) for each in F.silu(mixed.contiguous()).chunk(3, dim=-1))
        # In float32: rounded to bfloat16, a β near 1 or 2 would be it.
        strength = self.strength(x).to(accumulation_dtype(x)).sigmoid().mT * self.strongest  # b h t
        o, state = chunked_delta_rule(l2_normalise(q), l2_normalise(k), v, strength, None, state, self.chunk)
        y = join_heads(F.rms_norm(o, o.shape[-1:], eps=1e-5) * self.norm)
        if self.gate is not None:
            y = y * F.silu(self.gate(x))
        return self.out(y), inputs, state
