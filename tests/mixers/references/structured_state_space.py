"""S4 and S4D: one state space model per channel, in complex numbers."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.mixers.reference import Reference


class StateSpaceLayer(Reference):
    """A state of conjugate pairs, of which one of each is kept, a skip, GELU and GLU.

    The outputs are sums over all earlier inputs, weighted by the kernel; the bidirectional form
    adds one over all later inputs (2202.09729).
    """

    def __init__(self, *, width: int, state: int, dt_min: float, dt_max: float, causal: bool) -> None:
        super().__init__(width=width)
        self.log_dt = nn.Parameter(torch.rand(width) * math.log(dt_max / dt_min) + math.log(dt_min))
        self.C = nn.Parameter(torch.randn(1 if causal else 2, width, state // 2, 2) / 2**0.5)
        self.D = nn.Parameter(torch.randn(width))
        self.linear, self.gate = nn.Linear(width, width, bias=False), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        ahead, *back = (self.kernel(torch.view_as_complex(each), t) for each in self.C)
        outputs = []
        for now in range(t):
            y = (ahead[: now + 1].flip(0) * x[:, : now + 1]).sum(1)
            for kernel in back:
                y = y + (kernel[: t - now - 1] * x[:, now + 1 :]).sum(1)
            outputs.append(y)
        y = F.gelu(torch.stack(outputs, dim=1) + self.D * x)
        return self.linear(y) * torch.sigmoid(self.gate(y))

    def kernel(self, readout: Tensor, t: int) -> Tensor:
        """Return the responses to one input after 0 to t-1 steps, t d."""
        raise NotImplementedError

    def shared_weights(self) -> dict[str, Tensor]:
        weights = {
            **anchored("log_step", self.log_dt),
            "readout": parts(self.C[0]),
            "skip": self.D,
            "gate.weight": self.gate.weight,
            "gate.bias": self.gate.bias,
            "out.weight": self.linear.weight,
        }
        return weights if len(self.C) == 1 else {**weights, "readout_ahead": parts(self.C[1])}


class DiagonalStateSpace(StateSpaceLayer):
    mixer = "s4d"
    source = "2206.11893, S4D-Lin with a zero-order hold"
    choices = "no bias in the linear half of the GLU; B is 1; the bidirectional form is SaShiMi's"
    cases = ({"state": 8}, {"state": 2}, {"state": 4, "dt_max": 1.0, "causal": False})

    def __init__(
        self, *, width: int, state: int, dt_min: float = 0.001, dt_max: float = 0.1, causal: bool = True
    ) -> None:
        super().__init__(width=width, state=state, dt_min=dt_min, dt_max=dt_max, causal=causal)
        self.log_A_real = nn.Parameter(torch.full((width, state // 2), math.log(0.5)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(state // 2).expand(width, -1).clone())

    def kernel(self, readout: Tensor, t: int) -> Tensor:
        a = torch.complex(-self.log_A_real.exp(), self.A_imag)
        discrete = torch.exp(a * self.log_dt.exp()[:, None])
        held = (discrete - 1) / a
        return torch.stack([2 * (readout * held * discrete**step).real.sum(-1) for step in range(t)])

    def weights(self) -> Mapping[str, Tensor]:
        return {**self.shared_weights(), "log_rate": self.log_A_real, **anchored("frequency", self.A_imag)}


class NormalPlusLowRank(StateSpaceLayer):
    mixer = "s4"
    source = "2111.00396, the bilinear rule, with A = Λ - P P* (2202.09729)"
    choices = "no bias in the linear half of the GLU; C is learned, in the authors' code C (I - Ā^L); the bidirectional form is SaShiMi's"
    cases = ({"state": 8}, {"state": 2}, {"state": 4, "dt_max": 1.0, "causal": False})

    def __init__(
        self, *, width: int, state: int, dt_min: float = 0.001, dt_max: float = 0.1, causal: bool = True
    ) -> None:
        super().__init__(width=width, state=state, dt_min=dt_min, dt_max=dt_max, causal=causal)
        eigenvalues, p, b = normal_plus_low_rank_legs(state)
        self.log_real = nn.Parameter((-eigenvalues.real).log().expand(width, -1).clone())
        self.imaginary = nn.Parameter(eigenvalues.imag.expand(width, -1).clone())
        self.P, self.B = (nn.Parameter(torch.view_as_real(each).expand(width, -1, -1).clone()) for each in (p, b))

    def kernel(self, readout: Tensor, t: int) -> Tensor:
        eigenvalues = both(torch.complex(-self.log_real.exp(), self.imaginary))
        p, b, c = both(torch.view_as_complex(self.P)), both(torch.view_as_complex(self.B)), both(readout)
        a = torch.diag_embed(eigenvalues) - p[:, :, None] * p.conj()[:, None]
        half_step = self.log_dt.exp()[:, None, None] / 2
        identity = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        inverse = torch.linalg.inv(identity - half_step * a)
        advance = inverse @ (identity + half_step * a)
        state, responses = inverse @ (2 * half_step * b[..., None]), []
        for _ in range(t):
            responses.append((c[:, None] @ state)[:, 0, 0].real)
            state = advance @ state
        return torch.stack(responses)

    def weights(self) -> Mapping[str, Tensor]:
        return {
            **self.shared_weights(),
            "log_rate": self.log_real,
            **anchored("frequency", self.imaginary),
            **anchored("low_rank", parts(self.P)),
            "drive": parts(self.B),
        }


def normal_plus_low_rank_legs(state: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return Λ, P and B of HiPPO-LegS, one of each conjugate pair."""
    n = torch.arange(state, dtype=torch.float64)
    scales = (2 * n + 1).sqrt()
    legs = -torch.tril(scales[:, None] * scales, -1) - torch.diag(n + 1)
    p = (n + 0.5).sqrt()
    eigenvalues, vectors = torch.linalg.eig(legs + p[:, None] * p)
    kept = eigenvalues.imag > 0
    vectors = vectors[:, kept]
    return eigenvalues[kept], vectors.mH @ p.to(vectors.dtype), vectors.mH @ scales.to(vectors.dtype)


def both(kept: Tensor) -> Tensor:
    return torch.cat([kept, kept.conj()], dim=-1)


def parts(x: Tensor) -> Tensor:
    """Return real parts, then imaginary parts, d n."""
    return x.movedim(-1, -2).flatten(-2)


def anchored(name: str, value: Tensor) -> dict[str, Tensor]:
    """Return the buffer that holds a coarse value, and the parameter that holds the rest."""
    coarse = value.detach().bfloat16().to(value.dtype)
    return {f"{name}.anchor": coarse, f"{name}.offset": value - coarse}
