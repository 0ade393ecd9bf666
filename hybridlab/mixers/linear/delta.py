"""DeltaNet: linear attention that overwrites the value stored under a key."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.projections import join_normalised_heads, split_heads
from hybridlab.mixers.parts.short_convolution import ShortConvolution
from hybridlab.ops.linear.delta_rule import chunked_delta_rule, l2_normalise
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.validate import divides, whole


class DeltaState(NamedTuple):
    """The last l = conv_size-1 inputs of the short convolution, and the state of each head."""

    inputs: Float[Tensor, "b l 3*d"]
    state: Float[Tensor, "b h k k"]


class Delta(Mixer):
    """S_t = S_{t-1} + β_t k_t (v_t - S_{t-1}ᵀ k_t)ᵀ, o_t = S_tᵀ q_t / √k; y = W_out norm(o).

    `norm` is an RMS norm of each head. Queries, keys and values pass through a short convolution
    and SiLU; queries and keys are then scaled to length 1. β is the sigmoid of a linear map, or
    twice that with `negative_eigenvalues`, so that I - β k kᵀ can also reflect (2411.12537). `gate`
    multiplies the normalised output by the SiLU of another linear map.
    """

    kind = "linear"
    paper = "Yang et al. 2024, 2406.06484"
    version = 2  # 2: queries are divided by √k
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
        """Mix whole sequences in chunks."""
        return self._mix(x, None, None)[0]

    def initial_state(self, batch: int, like: Tensor) -> DeltaState:
        """Return zero inputs and states."""
        shape = (batch, self.strength.out_features, self.head_width, self.head_width)
        return DeltaState(
            self.convolution.empty_past(batch, like), like.new_zeros(shape, dtype=accumulation_dtype(like))
        )

    def extend(self, x: Float[Tensor, "b n d"], state: DeltaState) -> tuple[Float[Tensor, "b n d"], DeltaState]:
        """Continue the recurrence through the chunk."""
        y, inputs, last = self._mix(x, state.inputs, state.state)
        return y, DeltaState(inputs, last)

    def _mix(self, x: Tensor, past: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        mixed, inputs = self.convolution.with_silu(self.in_projection(x), past)
        q, k, v = (split_heads(each, self.head_width) for each in mixed.chunk(3, dim=-1))
        # β in float32: bfloat16 would round values near 1 or 2 to 1 or 2.
        strength = self.strength(x).to(accumulation_dtype(x)).sigmoid().mT * self.strongest  # b h t
        q, k = l2_normalise(q) * self.head_width**-0.5, l2_normalise(k)
        o, state = chunked_delta_rule(q, k, v, strength, None, state, self.chunk)
        y = join_normalised_heads(o, self.norm)
        if self.gate is not None:
            y = y * F.silu(self.gate(x))
        return self.out(y), inputs, state
