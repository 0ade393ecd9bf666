"""A short convolution on its own, one token at a time."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tests.mixers.equations import silu
from tests.mixers.reference import Reference


class ShortFilter(Reference):
    mixer = "short_conv"
    source = "its own definition: the convolution of 2312.00752, figure 3, without the rest"
    choices = "Zoology's baseline multiplies the convolution by a linear map; here a SiLU follows it and linear maps surround it"
    cases = (
        {"conv_size": 4, "causal": True},
        {"conv_size": 1, "causal": True},
        {"conv_size": 3, "causal": False},
        {"conv_size": 4, "causal": False},
    )

    def __init__(self, *, width: int, conv_size: int, causal: bool) -> None:
        super().__init__(width=width)
        self.behind = conv_size - 1 if causal else (conv_size - 1) // 2
        self.first, self.out = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.taps, self.bias = nn.Parameter(torch.randn(conv_size, width)), nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        u, t = self.first(x), x.shape[1]
        sums = []
        for i in range(t):
            places = [(tap, i - self.behind + j) for j, tap in enumerate(self.taps)]
            sums.append(sum(tap * u[:, place] for tap, place in places if 0 <= place < t) + self.bias)
        return self.out(silu(torch.stack(sums, dim=1)))

    def weights(self) -> Mapping[str, Tensor]:
        return {
            "in_projection.weight": self.first.weight,
            "convolution.weight": self.taps.mT,
            "convolution.bias": self.bias,
            "out.weight": self.out.weight,
        }
