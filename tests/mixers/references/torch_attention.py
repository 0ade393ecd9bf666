"""Full attention without positions."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tests.mixers.reference import Reference


class TorchAttention(Reference):
    mixer = "full"
    source = "`nn.MultiheadAttention`"
    package = "torch"
    choices = "no biases"
    cases = ({"heads": 4, "rope": None, "causal": True}, {"heads": 2, "rope": None, "causal": False})

    def __init__(self, *, width: int, heads: int, rope: None, causal: bool) -> None:
        super().__init__(width=width)
        self.causal = causal
        self.layer = nn.MultiheadAttention(width, heads, bias=False, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        ahead = torch.ones(t, t, dtype=torch.bool).triu(1) if self.causal else None
        return self.layer(x, x, x, attn_mask=ahead, need_weights=False)[0]

    def weights(self) -> Mapping[str, Tensor]:
        names = (f"projections.{name}.weight" for name in ("query", "key", "value"))
        parts = dict(zip(names, self.layer.in_proj_weight.chunk(3), strict=True))
        return {**parts, "out.weight": self.layer.out_proj.weight}
