"""Kimi Delta Attention with flash-linear-attention's recurrence, and its further settings."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.mixers.fla_naive import naive
from tests.mixers.reference import Reference


class KimiDeltaAttention(Reference):
    mixer = "kda"
    source = "`naive_recurrent_kda` in the layer of 2510.26692"
    package = "fla-core"
    compared = "op"
    choices = "nothing"
    cases = (
        {"heads": 2, "decay_gate_rank": 3, "negative_eigenvalues": True, "chunk": 64},
        {"heads": 1, "decay_gate_rank": 5, "negative_eigenvalues": False, "conv_size": 1, "chunk": 1},
    )

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        decay_gate_rank: int,
        negative_eigenvalues: bool,
        conv_size: int = 4,
        chunk: int = 32,
    ) -> None:
        super().__init__(width=width)
        self.heads, self.strongest = heads, 2 if negative_eigenvalues else 1
        self.mixed = nn.Linear(width, 3 * width, bias=False)
        self.taps = nn.Conv1d(3 * width, 3 * width, conv_size, groups=3 * width, padding=conv_size - 1, bias=False)
        self.beta = nn.Linear(width, heads, bias=False)
        self.decay, self.gate = (
            nn.Sequential(nn.Linear(width, decay_gate_rank, bias=False), nn.Linear(decay_gate_rank, width, bias=bias))
            for bias in (True, False)
        )
        self.A_log = nn.Parameter(torch.rand(heads))
        self.norm = nn.RMSNorm(width // heads, eps=1e-5)
        self.out = nn.Linear(width, width, bias=False)
        self.recurrence = naive("kda/naive.py").naive_recurrent_kda

    def forward(self, x: Tensor) -> Tensor:
        mixed = F.silu(self.taps(self.mixed(x).mT)[..., : x.shape[1]]).mT
        q, k, v = (each.unflatten(-1, (self.heads, -1)) for each in mixed.chunk(3, dim=-1))
        q, k = (each / (each.square().sum(-1, keepdim=True) + 1e-6).sqrt() for each in (q, k))
        log_decay = -self.A_log.exp()[:, None] * F.softplus(self.decay(x)).unflatten(-1, (self.heads, -1))
        o, _ = self.recurrence(q, k, v, log_decay, self.strongest * self.beta(x).sigmoid())
        return self.out(self.norm(o).flatten(2) * self.gate(x).sigmoid())

    def weights(self) -> Mapping[str, Tensor]:
        return {
            "in_projection.weight": self.mixed.weight,
            "convolution.weight": self.taps.weight[:, 0],
            "strength.weight": self.beta.weight,
            "step.0.weight": self.decay[0].weight,
            "step.1.weight": self.decay[1].weight,
            "step_bias": self.decay[1].bias,
            "log_rate": self.A_log,
            "gate.0.weight": self.gate[0].weight,
            "gate.1.weight": self.gate[1].weight,
            "norm": self.norm.weight,
            "out.weight": self.out.weight,
        }
