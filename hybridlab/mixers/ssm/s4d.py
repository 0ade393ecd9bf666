"""S4D: a diagonal state space model in every channel, computed as one long convolution."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.anchored import Anchored
from hybridlab.mixers.parts.state_space import check_state_size, draw_log_steps, draw_readout, skip_and_glu
from hybridlab.ops.conv.fft_conv import fft_conv
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.ops.ssm.diagonal_ssm import (
    advance_diagonal_state,
    complex_product,
    diagonal_kernel,
    read_diagonal_state,
    zero_order_hold,
)
from hybridlab.ops.ssm.hippo import legs_diagonal_plus_low_rank
from hybridlab.validate import choice, positive

INITS = ("lin", "inv", "legs")


class S4DState(NamedTuple):
    """The modes of each channel: one of each conjugate pair, real parts before imaginary parts."""

    modes: Float[Tensor, "b d n"]


class S4D(Mixer):
    """h' = A h + u, y = 2 Re(C h) + D u per channel, A diagonal and complex; then GELU and GLU.

    With a zero-order hold over the time step Δ: y = K * u + D u,
    K_l = 2 Re Σ_n C_n (e^{ΔA_n} - 1) / A_n e^{lΔA_n}. B is 1: only its product with C matters.
    Half of the `state` elements are real parts, half imaginary parts. The bidirectional form has a
    second C for a kernel that looks ahead (Goel et al. 2022, 2202.09729). Time steps and A learn at
    `ssm_lr` at most, as in the authors' code (null: at the common rate).
    """

    kind = "ssm"
    paper = "Gu et al. 2022, 2206.11893"
    version = 2  # 2: a smaller learning rate for time steps and A
    bounded_state = True
    free_sizes = ("state",)

    def __init__(
        self,
        *,
        width: int,
        causal: bool = True,
        state: int = 64,
        init: str = "lin",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        ssm_lr: float | None = 0.001,
    ) -> None:
        super().__init__()
        check_state_size(state)
        choice(INITS, init=init)
        positive(null="the common rate", ssm_lr=ssm_lr)
        self.causal, self.state = causal, state
        self.log_step = Anchored(draw_log_steps(width, dt_min, dt_max), ssm_lr)
        modes = torch.empty(width, state // 2)
        log_rate = nn.Parameter(torch.full_like(modes, math.log(0.5)))
        self.log_rate = tag(log_rate, decay=False, initialise=False, lr=ssm_lr)
        self.frequency = Anchored(modes.copy_(_frequencies(init, state)), ssm_lr)
        self.readout = tag(nn.Parameter(draw_readout(width, state)), initialise=False)
        self.readout_ahead = None if causal else tag(nn.Parameter(draw_readout(width, state)), initialise=False)
        self.skip = tag(nn.Parameter(torch.randn(width)), decay=False, initialise=False)
        self.gate = nn.Linear(width, width)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Convolve whole sequences with the kernel."""
        log_radius, angle, held = self._discretise(x)
        readouts = [self.readout] if self.readout_ahead is None else [self.readout, self.readout_ahead]
        kernels = (diagonal_kernel(log_radius, angle, complex_product(each, held), x.shape[1]) for each in readouts)
        return self._output(x, fft_conv(x, *kernels))

    def initial_state(self, batch: int, like: Tensor) -> S4DState:
        """Return zero modes."""
        return S4DState(like.new_zeros(batch, len(self.skip), self.state, dtype=accumulation_dtype(like)))

    def extend(self, x: Float[Tensor, "b n d"], state: S4DState) -> tuple[Float[Tensor, "b n d"], S4DState]:
        """Convolve the chunk, and add the decayed state at each of its tokens."""
        log_radius, angle, held = self._discretise(x)
        output, n = complex_product(self.readout, held), x.shape[1]
        y = fft_conv(x, diagonal_kernel(log_radius, angle, output, n))
        y = y + read_diagonal_state(state.modes, log_radius, angle, output, n).to(y.dtype)
        return self._output(x, y), S4DState(advance_diagonal_state(x, log_radius, angle, state.modes))

    def _discretise(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dtype = accumulation_dtype(x)
        step = self.log_step(dtype).exp()[:, None]
        return zero_order_hold(self.log_rate.to(dtype).exp(), self.frequency(dtype), step)

    def _output(self, x: Tensor, y: Tensor) -> Tensor:
        return skip_and_glu(x, y, skip=self.skip, out=self.out, gate=self.gate)


def _frequencies(init: str, state: int) -> Float[Tensor, " m"]:
    """Return the imaginary parts of A: S4's (legs), an approximation (inv), or Fourier's (lin)."""
    index = torch.arange(state // 2, dtype=torch.float64, device="cpu")
    if init == "lin":
        return math.pi * index
    if init == "inv":
        return state / math.pi * (state / (2 * index + 1) - 1)
    return legs_diagonal_plus_low_rank(state)[0]
