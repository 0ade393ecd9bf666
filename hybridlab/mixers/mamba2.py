"""Mamba-2: a selective state space model with one decay per head."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer, check_counts, tag
from hybridlab.mixers.projections import join_heads, split_heads
from hybridlab.mixers.short_convolution import ShortConvolution
from hybridlab.mixers.step_bias import draw_step_bias
from hybridlab.ops.linear_attention import chunked_linear_attention
from hybridlab.ops.precision import accumulation_dtype


class Mamba2State(NamedTuple):
    """The last inputs of the short convolution, and the state of each head."""

    inputs: Float[Tensor, "b l-1 c"]
    state: Float[Tensor, "b h n p"]


class Mamba2(Mixer):
    """S_t = exp(Δ_t A) S_{t-1} + B_t (Δ_t x_t)ᵀ, y_t = S_tᵀ C_t + D x_t; then y ⊙ SiLU(z), RMS norm and a linear map.

    x, B and C pass a short convolution; Δ, B and C depend on the token; `groups` heads share one B and C.
    Letters: e expanded width, h heads of width p, g groups, n size of the state (`state`), c = e + 2gn.
    """

    kind = "ssm"
    paper = "Dao & Gu 2024, 2405.21060"
    bounded_state = True
    free_sizes = ("expansion", "state")

    def __init__(
        self,
        *,
        width: int,
        expansion: int = 2,
        head_width: int = 64,
        state: int = 64,
        conv: int = 4,
        groups: int = 1,
        chunk: int = 64,
    ) -> None:
        super().__init__()
        check_counts(expansion=expansion, head_width=head_width, state=state, conv=conv, groups=groups, chunk=chunk)
        expanded = expansion * width
        if expanded % head_width:
            raise ValueError(f"head_width={head_width}: must divide the expanded width {expanded}")
        heads = expanded // head_width
        if heads % groups:
            raise ValueError(f"groups={groups}: must divide the number of heads, {heads}")
        self.head_width, self.state, self.groups, self.chunk = head_width, state, groups, chunk
        self.sizes = (expanded, expanded + 2 * groups * state, heads)
        self.in_projection = nn.Linear(width, sum(self.sizes), bias=False)
        self.convolution = ShortConvolution(width=self.sizes[1], length=conv, bias=True)
        self.log_rate = tag(nn.Parameter(torch.empty(heads).uniform_(1, 16).log()), decay=False, initialise=False)
        self.step_bias = tag(nn.Parameter(draw_step_bias(heads)), decay=False, initialise=False)
        self.skip = tag(nn.Parameter(torch.ones(heads)), decay=False, initialise=False)
        self.norm = tag(nn.Parameter(torch.ones(expanded)), decay=False, initialise=False)
        self.out = nn.Linear(expanded, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix a whole row in chunks."""
        return self._mix(x, None, None)[0]

    def initial_state(self, batch: int, like: Tensor) -> Mamba2State:
        """Return inputs and states of zero."""
        shape = (batch, self.sizes[2], self.state, self.head_width)
        return Mamba2State(
            self.convolution.empty_past(batch, like), like.new_zeros(shape, dtype=accumulation_dtype(like))
        )

    def extend(self, x: Float[Tensor, "b n d"], state: Mamba2State) -> tuple[Float[Tensor, "b n d"], Mamba2State]:
        """Carry the recurrence on through the piece."""
        y, inputs, last = self._mix(x, state.inputs, state.state)
        return y, Mamba2State(inputs, last.clone())

    def _mix(self, x: Tensor, past: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        gate, mixed, step = self.in_projection(x).split(self.sizes, dim=-1)
        mixed, inputs = self.convolution(mixed, past)
        shared = self.groups * self.state
        value, key, query = F.silu(mixed).split((self.sizes[0], shared, shared), dim=-1)
        value = split_heads(value, self.head_width)
        key, query = split_heads(key, self.state), split_heads(query, self.state)
        # The step and the decay in float32: in bfloat16 a decay near 1 would be rounded to it.
        dtype = accumulation_dtype(step)
        step = F.softplus(step.to(dtype) + self.step_bias.to(dtype)).mT  # b h t
        log_decay = -step * self.log_rate.to(dtype).exp()[:, None]
        driven = value * step[..., None].to(value.dtype)
        o, state = chunked_linear_attention(query, key, driven, log_decay, state, self.chunk)
        y = join_heads(torch.addcmul(o, value, self.skip.to(o.dtype)[:, None, None]))
        return self.out(self._normalise(y * F.silu(gate))), inputs, state

    def _normalise(self, y: Float[Tensor, "b t e"]) -> Float[Tensor, "b t e"]:
        """Divide each group of heads by its root mean square."""
        y = y.unflatten(-1, (self.groups, -1))
        return F.rms_norm(y, y.shape[-1:], eps=1e-5).flatten(-2) * self.norm
