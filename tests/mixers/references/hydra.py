"""Mamba-2 in both directions: Hydra's layer, one token at a time."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.mixers.reference import Reference


class Hydra(Reference):
    """Section 3 of 2407.09941: SS(x) shifted + flip(shift(SS(flip(x)))) + D x, with centred taps.

    Each direction has Δ, A, B and C of its own.
    """

    mixer = "mamba2"
    source = "2407.09941, section 3"
    choices = "an even number of taps has one more ahead; D is not a function of the token"
    cases = (
        {"state": 3, "head_width": 8, "groups": 2, "causal": False},
        {"state": 5, "head_width": 16, "conv_size": 7, "chunk": 16, "causal": False},
    )

    def __init__(
        self,
        *,
        width: int,
        state: int,
        head_width: int,
        causal: bool,
        groups: int = 1,
        conv_size: int = 4,
        chunk: int = 64,
    ) -> None:
        super().__init__(width=width)
        assert not causal
        inner, shared = 2 * width, groups * state
        self.heads, self.groups, self.sizes = inner // head_width, groups, [inner, shared, shared, shared, shared]
        self.gate, self.mixed = (nn.Linear(width, size, bias=False) for size in (inner, sum(self.sizes)))
        self.step = nn.Linear(width, 2 * self.heads, bias=False)
        self.taps = nn.Parameter(torch.randn(sum(self.sizes), conv_size) / 2)
        self.taps_bias = nn.Parameter(torch.randn(sum(self.sizes)))
        self.A_log, self.dt_bias = (nn.Parameter(torch.rand(2 * self.heads)) for _ in range(2))
        self.D, self.norm = nn.Parameter(torch.randn(self.heads)), nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        ahead = self.taps.shape[1] // 2
        padded = F.pad(self.mixed(x), (0, 0, self.taps.shape[1] - 1 - ahead, ahead))
        windows = padded.unfold(1, self.taps.shape[1], 1)
        value, *maps = F.silu((windows * self.taps).sum(-1) + self.taps_bias).split(self.sizes, dim=-1)
        value = value.unflatten(-1, (self.heads, -1))
        maps = [
            each.unflatten(-1, (self.groups, -1)).repeat_interleave(self.heads // self.groups, dim=2) for each in maps
        ]
        step = F.softplus(self.step(x) + self.dt_bias)
        decay = torch.exp(-step * self.A_log.exp())
        (step, step_back), (decay, decay_back) = step.chunk(2, dim=-1), decay.chunk(2, dim=-1)
        y = read_before(value, maps[0], maps[1], step, decay) + value * self.D[:, None]
        turned = (each.flip(1) for each in (value, maps[2], maps[3], step_back, decay_back))
        y = (y + read_before(*turned).flip(1)).flatten(2) * F.silu(self.gate(x))
        y = y.unflatten(-1, (self.groups, -1))
        y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return self.out(y.flatten(2) * self.norm)

    def weights(self) -> Mapping[str, Tensor]:
        return {
            "in_projection.weight": torch.cat([self.gate.weight, self.mixed.weight, self.step.weight]),
            "convolution.weight": self.taps,
            "convolution.bias": self.taps_bias,
            "log_rate": self.A_log,
            "step_bias": self.dt_bias,
            "skip": self.D,
            "norm": self.norm,
            "out.weight": self.out.weight,
        }


def read_before(value: Tensor, b: Tensor, c: Tensor, step: Tensor, decay: Tensor) -> Tensor:
    """Return what the token before each reads from the state that it leaves, and 0 at the first."""
    state, outputs = torch.zeros_like(b[:, 0, :, :, None] * value[:, 0, :, None]), []
    for t in range(value.shape[1]):
        outputs.append((c[:, t - 1, :, :, None] * state).sum(-2))
        driven = b[:, t, :, :, None] * (step[:, t, :, None] * value[:, t])[:, :, None]
        state = decay[:, t, :, None, None] * state + driven
    return torch.stack(outputs, dim=1)
