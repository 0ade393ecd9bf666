"""Linformer: attention to learned sums over the sequence."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tests.mixers.reference import Reference


class LinearProjection(Reference):
    """softmax(Q (E K)ᵀ / √k) F V in each head, one position and one token after the other."""

    mixer = "linformer"
    source = "2006.04768, equation 7, E and F shared by the heads"
    choices = "E and F are interpolated for sequences longer than `max_length`, which the paper does not consider"
    cases = (
        {"heads": 4, "rank": 5, "max_length": 130},
        {"heads": 2, "rank": 9, "max_length": 33},
        {"heads": 8, "rank": 40, "max_length": 1},
    )

    def __init__(self, *, width: int, heads: int, rank: int, max_length: int) -> None:
        super().__init__(width=width)
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.E, self.F = (nn.Parameter(torch.randn(rank, max_length) / max_length**0.5) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in (self.query, self.key, self.value)
        )
        keys, values = (
            sum(at_position(table, i, t)[:, None] * full[:, :, i, None] for i in range(t))
            for table, full in ((self.E, k), (self.F, v))
        )
        outputs = []
        for i in range(t):
            weights = torch.exp((q[:, :, i, None] * keys).sum(-1) / q.shape[-1] ** 0.5)
            outputs.append((weights[..., None] * values).sum(2) / weights.sum(-1, keepdim=True))
        return self.out(torch.stack(outputs, dim=1).flatten(2))

    def weights(self) -> Mapping[str, Tensor]:
        maps = {name: getattr(self, name).weight for name in ("query", "key", "value", "out")}
        return {
            **{f"{name}.weight": each for name, each in maps.items()},
            "key_sums": self.E.mT,
            "value_sums": self.F.mT,
        }


def at_position(table: Tensor, position: int, t: int) -> Tensor:
    """Return the weights of one of t positions in each sum.

    For more positions than the table has, they are interpolated between the centres of its own.
    """
    length = table.shape[1]
    if t <= length:
        return table[:, position]
    centre = min(max((position + 0.5) * length / t - 0.5, 0), length - 1)
    below = math.floor(centre)
    above = min(below + 1, length - 1)
    return ((below + 1 - centre) * table[:, below] + (centre - below) * table[:, above]) * length / t
