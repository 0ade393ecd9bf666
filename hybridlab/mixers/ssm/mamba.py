"""Mamba: a selective state space model with a decay for each element of a channel's state."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.short_convolution import ShortConvolution
from hybridlab.mixers.parts.step_bias import draw_step_bias
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.ops.ssm.selective_scan import selective_scan
from hybridlab.validate import whole


class MambaState(NamedTuple):
    """The last l = conv_size-1 inputs of the short convolution, and the state of each channel."""

    inputs: Float[Tensor, "b l e"]
    state: Float[Tensor, "b n e"]


class Mamba(Mixer):
    """S_t = exp(Δ_t A) ⊙ S_{t-1} + B_t (Δ_t ⊙ x_t)ᵀ, y_t = S_tᵀ C_t + D ⊙ x_t.

    The output is W_out (y ⊙ SiLU(z)) with z a linear map of the input. x passes through a short
    convolution and SiLU; Δ (through a map of rank `dt_rank`), B and C are functions of the result.
    Before the gate, the bidirectional form adds the y of a second model, run over the reversed
    sequence (Vision Mamba, 2401.09417). It differs by choice from the authors' code in the bias of
    the convolution, which starts at 0, there uniform as in PyTorch.

    Letters: e inner width (`expand`·d), n state elements per channel (`state`).
    """

    kind = "ssm"
    paper = "Gu & Dao 2023, 2312.00752"
    bounded_state = True
    free_sizes = ("expand", "state")

    def __init__(
        self,
        *,
        width: int,
        expand: int = 2,
        state: int = 16,
        conv_size: int = 4,
        dt_rank: int | None = None,
        causal: bool = True,
    ) -> None:
        super().__init__()
        whole(expand=expand, state=state, conv_size=conv_size)
        whole(dt_rank=dt_rank, null="a sixteenth of the width")
        dt_rank = -(-width // 16) if dt_rank is None else dt_rank
        self.causal = causal
        expanded = expand * width
        self.in_projection = nn.Linear(width, 2 * expanded, bias=False)
        self.ahead = SelectiveStateSpace(expanded, state, conv_size, dt_rank)
        self.back = None if causal else SelectiveStateSpace(expanded, state, conv_size, dt_rank)
        self.out = nn.Linear(expanded, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences in chunks."""
        mixed, gate = self.in_projection(x).chunk(2, dim=-1)
        y, _ = self.ahead(mixed)
        if self.back is not None:
            y = y + self.back(mixed.flip(1))[0].flip(1)
        return self.out(y * F.silu(gate))

    def initial_state(self, batch: int, like: Tensor) -> MambaState:
        """Return zero inputs and states."""
        return MambaState(
            self.ahead.convolution.empty_past(batch, like),
            like.new_zeros(batch, *self.ahead.log_rate.shape, dtype=accumulation_dtype(like)),
        )

    def extend(self, x: Float[Tensor, "b n d"], state: MambaState) -> tuple[Float[Tensor, "b n d"], MambaState]:
        """Continue the recurrence through the chunk."""
        mixed, gate = self.in_projection(x).chunk(2, dim=-1)
        y, state = self.ahead(mixed, state)
        return self.out(y * F.silu(gate)), state


class SelectiveStateSpace(nn.Module):
    """Mamba in one direction: short convolution, token-dependent parameters, scan."""

    def __init__(self, expanded: int, state: int, conv_size: int, dt_rank: int) -> None:
        super().__init__()
        self.sizes = (dt_rank, state, state)
        self.convolution = ShortConvolution(width=expanded, conv_size=conv_size, bias=True)
        self.parameter_projection = nn.Linear(expanded, sum(self.sizes), bias=False)
        self.step_projection = nn.Linear(dt_rank, expanded, bias=False)
        drawn = torch.empty(expanded, dt_rank).uniform_(-(dt_rank**-0.5), dt_rank**-0.5)
        self.step_projection.weight = tag(nn.Parameter(drawn), initialise=False)
        self.step_bias = tag(nn.Parameter(draw_step_bias(expanded)), decay=False, initialise=False)
        # A = -1, ..., -n in every channel: the real form of S4D's initialisation.
        rates = torch.arange(1.0, state + 1)[:, None].expand(state, expanded)
        self.log_rate = tag(nn.Parameter(rates.log()), decay=False, initialise=False)
        self.skip = tag(nn.Parameter(torch.ones(expanded)), decay=False, initialise=False)

    def forward(
        self, x: Float[Tensor, "b t e"], state: MambaState | None = None
    ) -> tuple[Float[Tensor, "b t e"], MambaState]:
        """Return y for the chunk, and the state after it."""
        past, start = (None, None) if state is None else state
        x, inputs = self.convolution(x, past)
        x = F.silu(x)
        step, key, query = self.parameter_projection(x).split(self.sizes, dim=-1)
        step = self.step_projection(step)
        # Steps and rates in float32: bfloat16 would round decays near 1 to 1.
        dtype = accumulation_dtype(step)
        step = F.softplus(step.to(dtype) + self.step_bias.to(dtype))
        rate = -self.log_rate.to(dtype).exp()
        y, last = selective_scan(x * step, step, rate, key, query, start)
        return (y + x * self.skip).to(x.dtype), MambaState(inputs, last)
