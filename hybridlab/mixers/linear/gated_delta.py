"""Gated DeltaNet: the delta rule with one decay per head."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.errors import ConfigError
from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.projections import join_normalised_heads, split_heads
from hybridlab.mixers.parts.short_convolution import ShortConvolution
from hybridlab.mixers.parts.step_bias import draw_step_bias
from hybridlab.ops.linear.delta_rule import chunked_delta_rule, l2_normalise
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.validate import positive, whole

# Rates from 0 to 16, as in the paper, without 0 itself, which has no logarithm.
SLOWEST_RATE, FASTEST_RATE = 1e-3, 16.0


class GatedDeltaState(NamedTuple):
    """The last l = conv_size-1 inputs of the short convolution, and the state of each head."""

    inputs: Float[Tensor, "b l c"]
    state: Float[Tensor, "b h k v"]


class GatedDelta(Mixer):
    """S_t = α_t (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ, o_t = S_tᵀ q_t / √k.

    y = W_out (norm(o) ⊙ SiLU(gate)) with an RMS norm of each head. α_t = exp(-rate ·
    softplus(step_t)) and β_t = σ(·), or 2σ(·) with `negative_eigenvalues` (2411.12537), depend on
    the token. Queries, keys and values pass through a short convolution and SiLU; queries and keys
    are then scaled to length 1. All keys together are `expand_k` times as wide as the stack, the
    values `value_ratio` times as wide as the keys: c = (2 + value_ratio)·expand_k·d channels. (In
    flash-linear-attention that ratio is called `expand_v`, which here, as in its GLA and RetNet, is
    relative to the width of the stack.) Rates start uniform in 0.001 to 16, in the authors' code in
    0 to 16.
    """

    kind = "linear"
    paper = "Yang et al. 2024, 2412.06464"
    version = 2  # 2: queries are divided by √k
    bounded_state = True
    free_sizes = ("value_ratio", "expand_k")

    def __init__(
        self,
        *,
        width: int,
        heads: int = 4,
        expand_k: float = 0.75,
        value_ratio: int = 2,
        conv_size: int = 4,
        negative_eigenvalues: bool = False,
        chunk: int = 64,
    ) -> None:
        super().__init__()
        whole(heads=heads, value_ratio=value_ratio, conv_size=conv_size, chunk=chunk)
        positive(expand_k=expand_k)
        if expand_k * width % heads:
            raise ConfigError(f"heads={heads}: must divide the width, {width}, times expand_k, {expand_k}")
        self.key_width = int(expand_k * width) // heads
        self.value_width, self.chunk = value_ratio * self.key_width, chunk
        self.strongest = 2 if negative_eigenvalues else 1
        self.sizes = (heads * self.key_width, heads * self.key_width, heads * self.value_width)
        self.in_projection = nn.Linear(width, sum(self.sizes), bias=False)
        self.convolution = ShortConvolution(width=sum(self.sizes), conv_size=conv_size, bias=False)
        self.strength = nn.Linear(width, heads, bias=False)
        self.step = nn.Linear(width, heads, bias=False)
        rate = torch.empty(heads).uniform_(SLOWEST_RATE, FASTEST_RATE)
        self.log_rate = tag(nn.Parameter(rate.log()), decay=False, initialise=False)
        self.step_bias = tag(nn.Parameter(draw_step_bias(heads)), decay=False, initialise=False)
        self.gate = nn.Linear(width, self.sizes[2], bias=False)
        self.norm = tag(nn.Parameter(torch.ones(self.value_width)), decay=False, initialise=False)
        self.out = nn.Linear(self.sizes[2], width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences in chunks."""
        return self._mix(x, None, None)[0]

    def initial_state(self, batch: int, like: Tensor) -> GatedDeltaState:
        """Return zero inputs and states."""
        shape = (batch, self.strength.out_features, self.key_width, self.value_width)
        return GatedDeltaState(
            self.convolution.empty_past(batch, like), like.new_zeros(shape, dtype=accumulation_dtype(like))
        )

    def extend(
        self, x: Float[Tensor, "b n d"], state: GatedDeltaState
    ) -> tuple[Float[Tensor, "b n d"], GatedDeltaState]:
        """Continue the recurrence through the chunk."""
        y, inputs, last = self._mix(x, state.inputs, state.state)
        return y, GatedDeltaState(inputs, last)

    def _mix(self, x: Tensor, past: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        mixed, inputs = self.convolution.with_silu(self.in_projection(x), past)
        query, key, value = mixed.split(self.sizes, dim=-1)
        q, k = (l2_normalise(split_heads(each, self.key_width)) for each in (query, key))
        q = q * self.key_width**-0.5
        # Decays and β in float32: bfloat16 would round those near 1 to 1.
        dtype = accumulation_dtype(x)
        strength = self.strength(x).to(dtype).sigmoid().mT * self.strongest  # b h t
        step = F.softplus(self.step(x).to(dtype) + self.step_bias.to(dtype)).mT
        log_decay = -step * self.log_rate.to(dtype).exp()[:, None]
        value = split_heads(value, self.value_width)
        o, state = chunked_delta_rule(q, k, value, strength, log_decay, state, self.chunk)
        return self.out(join_normalised_heads(o, self.norm) * F.silu(self.gate(x))), inputs, state
