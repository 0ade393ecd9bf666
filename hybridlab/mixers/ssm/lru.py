"""The linear recurrent unit (LRU): a diagonal complex recurrence between two dense maps."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.anchored import Anchored
from hybridlab.mixers.parts.state_space import skip_and_glu
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.ops.ssm.diagonal_recurrence import chunked_diagonal_recurrence
from hybridlab.validate import number, positive, whole

# Keeps the initial radius from being exactly 0 or 1, whose logarithms below are infinite.
EDGE = 1e-6


class LRUState(NamedTuple):
    """The real and imaginary parts of the state."""

    state: Float[Tensor, "b n 2"]


class LRU(Mixer):
    """h_t = λ ⊙ h_{t-1} + γ ⊙ B x_t, y_t = Re(C h_t) + D ⊙ x_t; then GELU and GLU.

    λ = exp(-e^ν + i e^θ) starts uniform on the ring r_min ≤ |λ| ≤ r_max, with angles below
    max_phase. γ starts at √(1 - |λ|²), which keeps h at the scale of the input. γ, ν, θ, D and the
    dense complex B and C are learned. The bidirectional form also runs the recurrence from the end
    of the sequence, and reads it with a second C, as in S5 (2208.04933). As in the paper the
    recurrent parameters λ, γ and B learn more slowly: at `ssm_lr_factor` times the common rate
    (null: at the common rate). The default is that of Zucchet's code (NicolasZucchet/minimal-LRU).
    """

    kind = "recurrence"
    paper = "Orvieto et al. 2023, 2303.06349"
    version = 2  # 2: a smaller learning rate for λ, γ and B
    bounded_state = True
    free_sizes = ("state",)

    def __init__(
        self,
        *,
        width: int,
        causal: bool = True,
        state: int = 256,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 6.28,
        ssm_lr_factor: float | None = 0.5,
        chunk: int = 32,
    ) -> None:
        super().__init__()
        whole(state=state, chunk=chunk)
        number(least=0, most=1, below=True, r_min=r_min)
        number(least=r_min, most=1, r_max=r_max)
        positive(max_phase=max_phase)
        positive(null="the common rate", ssm_lr_factor=ssm_lr_factor)
        factor = 1.0 if ssm_lr_factor is None else ssm_lr_factor
        self.state, self.chunk, self.causal = state, chunk, causal
        square = (r_min**2 + (r_max**2 - r_min**2) * torch.rand(state)).clamp(EDGE, 1 - EDGE)
        log_rate, log_gain = nn.Parameter((-0.5 * square.log()).log()), nn.Parameter(0.5 * (1 - square).log())
        self.log_rate = tag(log_rate, decay=False, initialise=False, lr_factor=factor)
        self.log_angle = Anchored((max_phase * torch.rand(state).clamp(min=EDGE)).log(), lr_factor=factor)
        self.log_gain = tag(log_gain, decay=False, initialise=False, lr_factor=factor)
        self.drive = nn.Linear(width, 2 * state, bias=False)  # B; rows alternate real and imaginary parts
        self.readout = nn.Linear(2 * state, width, bias=False)  # C; columns alternate Re C and -Im C
        drive = torch.randn(2 * state, width) * (2 * width) ** -0.5
        self.drive.weight = tag(nn.Parameter(drive), decay=False, initialise=False, lr_factor=factor)
        _draw(self.readout)
        self.skip = tag(nn.Parameter(torch.randn(width)), decay=False, initialise=False)
        self.gate = nn.Linear(width, width)
        self.out = nn.Linear(width, width, bias=False)
        self.readout_back = None if causal else nn.Linear(2 * state, width, bias=False)
        if self.readout_back is not None:
            _draw(self.readout_back)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences in chunks."""
        return self._mix(x, None)[0]

    def initial_state(self, batch: int, like: Tensor) -> LRUState:
        """Return zero states."""
        return LRUState(like.new_zeros(batch, self.state, 2, dtype=accumulation_dtype(like)))

    def extend(self, x: Float[Tensor, "b n d"], state: LRUState) -> tuple[Float[Tensor, "b n d"], LRUState]:
        """Continue the recurrence through the chunk."""
        y, last = self._mix(x, state.state)
        return y, LRUState(last.clone())

    def _mix(self, x: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor]:
        # The gain scales the weights, which are fewer than the inputs.
        weight = self.drive.weight.unflatten(0, (self.state, 2)) * self.log_gain.exp()[:, None, None]
        driven = F.linear(x, weight.flatten(0, 1)).mT.unflatten(1, (self.state, 2))
        h, last = self._recur(driven, start)
        y = self.readout(h.flatten(1, 2).mT.to(x.dtype))
        if self.readout_back is not None:
            h, _ = self._recur(driven.flip(-1), None)
            y = y + self.readout_back(h.flip(-1).flatten(1, 2).mT.to(x.dtype))
        return skip_and_glu(x, y, skip=self.skip, out=self.out, gate=self.gate), last

    def _recur(
        self, driven: Float[Tensor, "b n 2 t"], start: Tensor | None
    ) -> tuple[Float[Tensor, "b n 2 t"], Float[Tensor, "b n 2"]]:
        dtype = accumulation_dtype(driven)
        rate, angle = self.log_rate.to(dtype).exp(), self.log_angle(dtype).exp()
        return chunked_diagonal_recurrence(driven, -rate, angle, start, self.chunk)


def _draw(readout: nn.Linear) -> None:
    """Draw C: complex numbers of variance 1 / state."""
    drawn = torch.randn_like(readout.weight) * (readout.in_features // 2) ** -0.5
    readout.weight = tag(nn.Parameter(drawn), initialise=False)
