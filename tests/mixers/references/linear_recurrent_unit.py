"""The linear recurrent unit, token by token in complex numbers."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.mixers.reference import Reference


class LinearRecurrentUnit(Reference):
    """Appendix A of 2303.06349, then GELU and GLU as in its blocks."""

    mixer = "lru"
    source = "2303.06349, appendix A"
    choices = "no bias in the linear half of the GLU; the bidirectional form is S5's (2208.04933)"
    cases = (
        {"state": 12},
        {"state": 1, "chunk": 1},
        {"state": 5, "r_min": 0.8, "r_max": 0.99, "max_phase": 0.3, "chunk": 7},
        {"state": 5, "causal": False, "chunk": 7},
    )

    def __init__(
        self,
        *,
        width: int,
        state: int,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 6.28,
        chunk: int = 32,
        causal: bool = True,
    ) -> None:
        super().__init__(width=width)
        squares = torch.rand(state) * (r_max**2 - r_min**2) + r_min**2
        self.nu_log = nn.Parameter(torch.log(-0.5 * torch.log(squares)))
        self.theta_log = nn.Parameter(torch.log(max_phase * torch.rand(state)))
        self.gamma_log = nn.Parameter(torch.log(torch.sqrt(1 - squares)))
        self.B_re, self.B_im = (nn.Parameter(torch.randn(state, width) / (2 * width) ** 0.5) for _ in range(2))
        directions = 1 if causal else 2
        self.C_re, self.C_im = (nn.Parameter(torch.randn(directions, width, state) / state**0.5) for _ in range(2))
        self.D = nn.Parameter(torch.randn(width))
        self.linear, self.gate = nn.Linear(width, width, bias=False), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.run(x, 0)
        if len(self.C_re) == 2:
            y = y + self.run(x.flip(1), 1).flip(1)
        y = F.gelu(y + self.D * x)
        return self.linear(y) * torch.sigmoid(self.gate(y))

    def run(self, x: Tensor, direction: int) -> Tensor:
        eigenvalues = torch.exp(torch.complex(-self.nu_log.exp(), self.theta_log.exp()))
        drive = torch.complex(self.B_re, self.B_im) * self.gamma_log.exp()[:, None]
        readout = torch.complex(self.C_re[direction], self.C_im[direction])
        state, outputs = torch.zeros_like(eigenvalues), []
        for token in x.unbind(1):
            state = eigenvalues * state + token.to(drive.dtype) @ drive.mT
            outputs.append((state @ readout.mT).real)
        return torch.stack(outputs, dim=1)

    def weights(self) -> Mapping[str, Tensor]:
        readouts = torch.stack([self.C_re, -self.C_im], dim=-1).flatten(2)
        coarse = self.theta_log.detach().bfloat16().to(self.theta_log.dtype)
        weights = {
            "log_rate": self.nu_log,
            "log_angle.anchor": coarse,
            "log_angle.offset": self.theta_log - coarse,
            "log_gain": self.gamma_log,
            "drive.weight": torch.stack([self.B_re, self.B_im], dim=1).flatten(0, 1),
            "readout.weight": readouts[0],
            "skip": self.D,
            "gate.weight": self.gate.weight,
            "gate.bias": self.gate.bias,
            "out.weight": self.linear.weight,
        }
        return weights if len(readouts) == 1 else {**weights, "readout_back.weight": readouts[1]}
