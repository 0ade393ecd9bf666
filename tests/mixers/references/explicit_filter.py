"""A long convolution with a weight for each distance, one token at a time."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tests.mixers.equations import filtered, gelu
from tests.mixers.reference import Reference


class ExplicitFilter(Reference):
    mixer = "long_conv"
    source = "2302.06646, section 3: y = K * u + D u in each channel"
    choices = (
        "a map in front, GELU and a map behind, without the authors' GLU; no squash or smoothing of the filter, which "
        "starts as decaying noise"
    )
    cases = (
        {"conv_size": 1, "causal": True},
        {"conv_size": 8, "causal": False},
        {"conv_size": 64, "causal": True},
        {"conv_size": 200, "causal": False},
    )
    lengths = (1, 7, 33, 65)

    def __init__(self, *, width: int, conv_size: int, causal: bool) -> None:
        super().__init__(width=width)
        self.first, self.out = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.behind = nn.Parameter(torch.randn(conv_size, width))
        self.ahead = None if causal else nn.Parameter(torch.randn(conv_size, width))
        self.D = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        u = self.first(x)
        return self.out(gelu(filtered(u, self.behind, self.ahead) + self.D * u))

    def weights(self) -> Mapping[str, Tensor]:
        ahead = {} if self.ahead is None else {"filter_ahead": self.ahead.mT}
        return {
            **ahead,
            "in_projection.weight": self.first.weight,
            "filter": self.behind.mT,
            "skip": self.D,
            "out.weight": self.out.weight,
        }
