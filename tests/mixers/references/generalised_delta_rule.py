"""RWKV-7's time mixing with flash-linear-attention's recurrence."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.mixers.fla_naive import naive
from tests.mixers.reference import Reference


class TimeMixing(Reference):
    """The authors' formulas, with w = exp(-exp(-softplus(-z) - ½))."""

    mixer = "rwkv7"
    source = "`dplr_recurrence` in the layer of 2503.14456"
    package = "fla-core"
    compared = "op"
    choices = "no layer takes values of the first; the ε of the norm is 1e-5 times the head width, there 64e-5"
    cases = (
        {"heads": 2},
        {"heads": 4, "decay_rank": 3, "rate_rank": 4, "gate_rank": 5, "chunk": 128},
        {"heads": 1, "chunk": 1},
    )

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        decay_rank: int = 32,
        rate_rank: int = 32,
        gate_rank: int = 32,
        chunk: int = 32,
    ) -> None:
        super().__init__(width=width)
        self.heads = heads
        self.mix = nn.Parameter(torch.rand(6, width))  # of r, w, k, v, a and g
        self.receptance, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.w0, self.w1, self.w2 = low_rank(width, decay_rank)
        self.a0, self.a1, self.a2 = low_rank(width, rate_rank)
        _, self.g1, self.g2 = low_rank(width, gate_rank)
        self.k_k, self.k_a, self.r_k = (nn.Parameter(torch.rand(width)) for _ in range(3))
        self.norm = nn.GroupNorm(heads, width, eps=1e-5 * width / heads)
        self.recurrence = naive("generalized_delta_rule/dplr/naive.py").dplr_recurrence

    def forward(self, x: Tensor) -> Tensor:
        shifted = F.pad(x, (0, 0, 1, -1)) - x
        for_r, for_w, for_k, for_v, for_a, for_g = (x + shifted * mix for mix in self.mix)
        r, k, v = self.receptance(for_r), self.key(for_k), self.value(for_v)
        log_decay = -torch.exp(-F.softplus(-(self.w0 + torch.tanh(for_w @ self.w1) @ self.w2)) - 0.5)
        a = torch.sigmoid(self.a0 + for_a @ self.a1 @ self.a2)
        g = torch.sigmoid(for_g @ self.g1) @ self.g2
        removed = F.normalize(self.split(k * self.k_k), dim=-1)
        k = k * (1 + (a - 1) * self.k_a)
        # Its recurrence divides queries by the root of their width.
        scale = (x.shape[-1] // self.heads) ** 0.5
        o, _ = self.recurrence(
            *(self.split(each) for each in (r * scale, k, v)), -removed, removed * self.split(a), self.split(log_decay)
        )
        o = self.norm(o.transpose(1, 2).flatten(2).flatten(0, 1)).view_as(x)
        bonus = self.split(r * k * self.r_k).sum(-1, keepdim=True) * self.split(v)
        return self.out((o + bonus.transpose(1, 2).flatten(2)) * g)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def weights(self) -> Mapping[str, Tensor]:
        return {
            "shift": self.mix,
            "receptance.weight": self.receptance.weight,
            "key.weight": self.key.weight,
            "value.weight": self.value.weight,
            "decay.down.weight": self.w1.mT,
            "decay.up.weight": self.w2.mT,
            "decay_bias": self.w0,
            "rate.down.weight": self.a1.mT,
            "rate.up.weight": self.a2.mT,
            "rate_bias": self.a0,
            "gate.down.weight": self.g1.mT,
            "gate.up.weight": self.g2.mT,
            "removal_scale": self.k_k,
            "rate_share": self.k_a,
            "bonus": self.r_k,
            "norm": self.norm.weight,
            "norm_bias": self.norm.bias,
            "out.weight": self.out.weight,
        }


def low_rank(width: int, rank: int) -> tuple[nn.Parameter, nn.Parameter, nn.Parameter]:
    return (
        nn.Parameter(torch.randn(width)),
        nn.Parameter(torch.randn(width, rank) * width**-0.5),
        nn.Parameter(torch.randn(rank, width) * rank**-0.5),
    )
