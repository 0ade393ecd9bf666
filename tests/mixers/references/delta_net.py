"""DeltaNet with flash-linear-attention's recurrence."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.mixers.fla_naive import naive
from tests.mixers.reference import Reference


class DeltaNet(Reference):
    """A convolution and SiLU for each of q, k and v; unit queries and keys; a norm of each head."""

    mixer = "delta"
    source = "`delta_rule_recurrence` in the layer of 2406.06484"
    package = "fla-core"
    compared = "op"
    choices = "nothing"
    cases = ({"heads": 2}, {"heads": 4, "conv_size": 2, "chunk": 7})

    def __init__(self, *, width: int, heads: int, conv_size: int = 4, chunk: int = 64) -> None:
        super().__init__(width=width)
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, conv_size, groups=width, padding=conv_size - 1, bias=False) for _ in range(3)
        )
        self.beta = nn.Linear(width, heads, bias=False)
        self.norm = nn.RMSNorm(width // heads, eps=1e-5)
        self.recurrence = naive("delta_rule/naive.py").delta_rule_recurrence

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            F.silu(convolution(project(x).mT)[..., : x.shape[1]]).unflatten(1, (self.heads, -1)).mT
            for project, convolution in zip((self.query, self.key, self.value), self.convolutions, strict=True)
        )
        q, k = (each / (each.square().sum(-1, keepdim=True) + 1e-6).sqrt() for each in (q, k))
        o, _ = self.recurrence(q, k, v, self.beta(x).sigmoid().mT)
        return self.out(self.norm(o).transpose(1, 2).flatten(2))

    def weights(self) -> Mapping[str, Tensor]:
        return {
            "in_projection.weight": torch.cat([self.query.weight, self.key.weight, self.value.weight]),
            "convolution.weight": torch.cat([each.weight[:, 0] for each in self.convolutions]),
            "strength.weight": self.beta.weight,
            "norm": self.norm.weight,
            "out.weight": self.out.weight,
        }
