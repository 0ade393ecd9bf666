"""H3: a shift SSM and a diagonal SSM between two products, one token at a time."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tests.mixers.reference import Reference
from tests.mixers.references.structured_state_space import anchored, parts


class HungryHippos(Reference):
    """q ⊙ SSM_diag(SSM_shift(k) ⊙ v): each SSM steps x' = Ā x + B̄ u, y = C x + D u."""

    mixer = "h3"
    source = "2212.14052, section 3.1 and algorithm 1, heads of one channel"
    choices = "B is fixed; no biases; the skip of the shift SSM is part of its first tap"
    cases = (
        {"conv_size": 4, "state": 8, "discretisation": "bilinear"},
        {"conv_size": 40, "state": 4, "discretisation": "zoh"},
        {"conv_size": 1, "state": 2, "discretisation": "bilinear"},
    )

    def __init__(self, *, width: int, conv_size: int, state: int, discretisation: str) -> None:
        super().__init__(width=width)
        self.discretisation = discretisation
        self.q_proj, self.k_proj, self.v_proj, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.shift_C, self.shift_D = nn.Parameter(torch.randn(width, conv_size)), nn.Parameter(torch.randn(width))
        self.log_dt = nn.Parameter(torch.rand(width) * math.log(100) + math.log(0.001))
        self.log_A_real = nn.Parameter(torch.full((width, state // 2), math.log(0.5)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(state // 2).expand(width, -1).clone())
        self.C, self.D = nn.Parameter(torch.randn(width, state // 2, 2)), nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        advance, drive = self.discretised()
        readout = torch.view_as_complex(self.C)
        register = x.new_zeros(len(x), *self.shift_C.shape)  # the latest keys of each channel, the newest first
        state = torch.zeros(len(x), *readout.shape, dtype=readout.dtype)
        outputs = []
        for i in range(x.shape[1]):
            register = torch.cat([k[:, i, :, None], register[..., :-1]], dim=-1)
            shifted = (self.shift_C * register).sum(-1) + self.shift_D * k[:, i]
            u = shifted * v[:, i]
            state = advance * state + drive * u[..., None]
            outputs.append(q[:, i] * (2 * (readout * state).real.sum(-1) + self.D * u))
        return self.out(torch.stack(outputs, dim=1))

    def discretised(self) -> tuple[Tensor, Tensor]:
        """Return Ā and B̄ of one of each pair of modes, with B = 1."""
        a, dt = torch.complex(-self.log_A_real.exp(), self.A_imag), self.log_dt.exp()[:, None]
        if self.discretisation == "zoh":
            return torch.exp(a * dt), (torch.exp(a * dt) - 1) / a
        return (1 + dt / 2 * a) / (1 - dt / 2 * a), dt / (1 - dt / 2 * a)

    def weights(self) -> Mapping[str, Tensor]:
        taps = torch.cat([self.shift_C[:, :1] + self.shift_D[:, None], self.shift_C[:, 1:]], dim=1)
        return {
            "in_projection.weight": torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight]),
            "convolution.weight": taps.flip(-1),
            **anchored("log_step", self.log_dt),
            "log_rate": self.log_A_real,
            **anchored("frequency", self.A_imag),
            "readout": parts(self.C),
            "skip": self.D,
            "out.weight": self.out.weight,
        }
