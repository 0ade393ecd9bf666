"""S4: a state space model with a HiPPO matrix per channel, computed as one long convolution."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.anchored import Anchored
from hybridlab.mixers.parts.state_space import check_state_size, draw_log_steps, draw_readout, skip_and_glu
from hybridlab.ops.conv.fft_conv import fft_conv
from hybridlab.ops.precision import accumulation_dtype, autocast_off
from hybridlab.ops.ssm.dplr_ssm import advance_state, bilinear_dplr, repeated_squares, responses
from hybridlab.ops.ssm.hippo import legs_diagonal_plus_low_rank
from hybridlab.validate import positive


class S4State(NamedTuple):
    """The state of each channel: one of each conjugate pair, real parts before imaginary parts."""

    state: Float[Tensor, "b d n"]


class S4(Mixer):
    """h' = A h + B u, y = 2 Re(C h) + D u per channel, A = Λ - P P*; then GELU and GLU.

    Each channel has its own Λ, P and B, which start as HiPPO-LegS. The bilinear rule with time step
    Δ turns A and B into Ā and B̄: y = K * u + D u, K_l = 2 Re(C Ā^l B̄). With P P* in place of P Q*
    the state cannot grow while the real parts of Λ are negative (Goel et al. 2022, 2202.09729). The
    bidirectional form, also theirs, has a second C for a kernel that looks ahead. Time steps, Λ, P
    and B learn at `ssm_lr` at most, as in the authors' code (null: at the common rate).
    """

    kind = "ssm"
    paper = "Gu et al. 2022, 2111.00396"
    version = 2  # 2: a smaller learning rate for time steps, Λ, P and B
    bounded_state = True
    free_sizes = ("state",)

    def __init__(
        self,
        *,
        width: int,
        causal: bool = True,
        state: int = 64,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        ssm_lr: float | None = 0.001,
    ) -> None:
        super().__init__()
        check_state_size(state)
        positive(null="the common rate", ssm_lr=ssm_lr)
        self.causal, self.state = causal, state
        frequency, low_rank, drive = legs_diagonal_plus_low_rank(state)
        self.log_step = Anchored(draw_log_steps(width, dt_min, dt_max), ssm_lr)
        modes, pairs = torch.empty(width, state // 2), torch.empty(width, state)
        log_rate = nn.Parameter(torch.full_like(modes, math.log(0.5)))
        self.log_rate = tag(log_rate, decay=False, initialise=False, lr=ssm_lr)
        self.frequency = Anchored(modes.copy_(frequency), ssm_lr)
        self.low_rank = Anchored(pairs.copy_(torch.cat([low_rank.real, low_rank.imag])), ssm_lr)
        drives = nn.Parameter(torch.empty_like(pairs).copy_(torch.cat([drive.real, drive.imag])))
        self.drive = tag(drives, decay=False, initialise=False, lr=ssm_lr)
        self.readout = tag(nn.Parameter(draw_readout(width, state)), initialise=False)
        self.readout_ahead = None if causal else tag(nn.Parameter(draw_readout(width, state)), initialise=False)
        self.skip = tag(nn.Parameter(torch.randn(width)), decay=False, initialise=False)
        self.gate = nn.Linear(width, width)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Convolve whole sequences with the kernel."""
        with autocast_off(x):
            transition, drive, readouts = self._discretise(x)
            powers = repeated_squares(transition, x.shape[1] - 1)
            kernels = responses(powers, drive[..., None], readouts, x.shape[1])[:, :, 0]
        return self._output(x, fft_conv(x, *kernels.unbind(1)))

    def initial_state(self, batch: int, like: Tensor) -> S4State:
        """Return zero states."""
        return S4State(like.new_zeros(batch, len(self.skip), self.state, dtype=accumulation_dtype(like)))

    def extend(self, x: Float[Tensor, "b n d"], state: S4State) -> tuple[Float[Tensor, "b n d"], S4State]:
        """Convolve the chunk, and add the decayed state at each of its tokens."""
        with autocast_off(x):
            transition, drive, readouts = self._discretise(x)
            powers = repeated_squares(transition, x.shape[1])
            # The kernel responds to an input; the response to the state starts one step later.
            starts = torch.cat([drive[..., None], transition @ state.state.permute(1, 2, 0)], dim=-1)
            kernel, *left = responses(powers, starts, readouts, x.shape[1])[:, 0].unbind(1)
            y = fft_conv(x, kernel) + torch.stack(left).mT.to(x.dtype)
            last = advance_state(x, powers, drive, state.state)
        return self._output(x, y), S4State(last)

    def _discretise(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dtype = accumulation_dtype(x)
        transition, drive = bilinear_dplr(
            self.log_rate.to(dtype).exp(),
            self.frequency(dtype),
            self.low_rank(dtype),
            self.drive.to(dtype),
            self.log_step(dtype).exp()[:, None],
        )
        readouts = self.readout[:, None]
        if self.readout_ahead is not None:
            readouts = torch.stack([self.readout, self.readout_ahead], dim=1)
        real, imaginary = readouts.to(dtype).chunk(2, -1)
        return transition, drive, 2 * torch.cat([real, -imaginary], dim=-1)

    def _output(self, x: Tensor, y: Tensor) -> Tensor:
        return skip_and_glu(x, y, skip=self.skip, out=self.out, gate=self.gate)
