"""Kimi Delta Attention: the delta rule with a decay for each channel of the key."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.projections import join_normalised_heads, split_heads
from hybridlab.mixers.parts.short_convolution import ShortConvolution
from hybridlab.mixers.parts.step_bias import draw_step_bias
from hybridlab.ops.linear.channel_delta_rule import chunked_channel_delta_rule
from hybridlab.ops.linear.delta_rule import l2_normalise
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.validate import divides, power_of_two, whole


class KDAState(NamedTuple):
    """The last l = conv_size-1 inputs of the short convolution, and the state of each head."""

    inputs: Float[Tensor, "b l 3*d"]
    state: Float[Tensor, "b h k k"]


class KDA(Mixer):
    """S_t = (I - β_t k_t k_tᵀ) Diag(α_t) S_{t-1} + β_t k_t v_tᵀ, o_t = S_tᵀ q_t / √k.

    y = W_out (norm(o) ⊙ σ(gate)) with an RMS norm of each head. α_t = exp(-rate · softplus(step_t +
    bias)), with one rate per head and one step per channel; step and gate are maps of rank
    `decay_gate_rank` (null: the head width). β_t = σ(·), or 2σ(·) with `negative_eigenvalues`
    (2411.12537). Queries, keys and values pass through a short convolution and SiLU; queries and
    keys are then scaled to length 1.
    """

    kind = "linear"
    paper = "Kimi Team 2025, 2510.26692"
    bounded_state = True

    def __init__(
        self,
        *,
        width: int,
        heads: int = 4,
        conv_size: int = 4,
        decay_gate_rank: int | None = None,
        negative_eigenvalues: bool = False,
        chunk: int = 32,
    ) -> None:
        super().__init__()
        whole(heads=heads, conv_size=conv_size)
        whole(decay_gate_rank=decay_gate_rank, null="as wide as a head")
        power_of_two(chunk=chunk)
        divides(width, "the width", heads=heads)
        self.head_width, self.chunk = width // heads, chunk
        self.strongest = 2 if negative_eigenvalues else 1
        rank = self.head_width if decay_gate_rank is None else decay_gate_rank
        self.in_projection = nn.Linear(width, 3 * width, bias=False)
        self.convolution = ShortConvolution(width=3 * width, conv_size=conv_size, bias=False)
        self.strength = nn.Linear(width, heads, bias=False)
        self.step = nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False))
        self.log_rate = tag(nn.Parameter(torch.empty(heads).uniform_(1, 16).log()), decay=False, initialise=False)
        self.step_bias = tag(nn.Parameter(draw_step_bias(width)), decay=False, initialise=False)
        self.gate = nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False))
        self.norm = tag(nn.Parameter(torch.ones(self.head_width)), decay=False, initialise=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences in chunks."""
        return self._mix(x, None, None)[0]

    def initial_state(self, batch: int, like: Tensor) -> KDAState:
        """Return zero inputs and states."""
        shape = (batch, self.strength.out_features, self.head_width, self.head_width)
        return KDAState(self.convolution.empty_past(batch, like), like.new_zeros(shape, dtype=accumulation_dtype(like)))

    def extend(self, x: Float[Tensor, "b n d"], state: KDAState) -> tuple[Float[Tensor, "b n d"], KDAState]:
        """Continue the recurrence through the chunk."""
        y, inputs, last = self._mix(x, state.inputs, state.state)
        return y, KDAState(inputs, last.clone())

    def _mix(self, x: Tensor, past: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        mixed, inputs = self.convolution.with_silu(self.in_projection(x), past)
        q, k, v = (split_heads(each, self.head_width) for each in mixed.chunk(3, dim=-1))
        q, k = l2_normalise(q) * self.head_width**-0.5, l2_normalise(k)
        # Decays and β in float32: bfloat16 would round those near 1 to 1.
        dtype = accumulation_dtype(x)
        strength = self.strength(x).to(dtype).sigmoid().mT * self.strongest  # b h t
        step = split_heads(F.softplus(self.step(x).to(dtype) + self.step_bias.to(dtype)), self.head_width)
        log_decay = -step * self.log_rate.to(dtype).exp()[:, None, None]
        o, state = chunked_channel_delta_rule(q, k, v, strength, log_decay, state, self.chunk)
        return self.out(join_normalised_heads(o, self.norm) * self.gate(x).sigmoid()), inputs, state
