"""A long convolution with the module of flash-linear-attention."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tests.mixers.equations import gelu
from tests.mixers.fla_naive import naive
from tests.mixers.reference import Reference


class FlaLongConvolution(Reference):
    mixer = "long_conv"
    source = "`LongConvolution`"
    package = "fla-core"
    compared = "op"
    choices = "D is learnt, theirs is 1; a filter longer than the sequence is cut, theirs wraps round into the past"
    cases = ({"conv_size": 33, "causal": True},)
    lengths = (33, 65, 130)

    def __init__(self, *, width: int, conv_size: int, causal: bool) -> None:
        super().__init__(width=width)
        self.first, self.out = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.op = naive("../modules/long_conv.py").LongConvolution(width, max_len=conv_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(gelu(self.op(self.first(x))))

    def weights(self) -> Mapping[str, Tensor]:
        return {
            "in_projection.weight": self.first.weight,
            "filter": self.op.filter,
            "skip": torch.ones_like(self.op.filter[:, 0]),
            "out.weight": self.out.weight,
        }
