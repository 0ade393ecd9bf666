"""Channel mixers: they mix the channels of each token, after the layer's token mixer."""

from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.validate import positive, whole


class SwiGLU(nn.Module):
    """A gated feed-forward layer: `out(silu(gate(x)) * value(x))`.

    Shazeer 2020, arXiv:2002.05202, equation 6. The hidden width is `expansion` times `width`,
    rounded to a `multiple`.
    """

    version: ClassVar[int] = 1  # raised whenever the mathematics or the initialisation changes

    def __init__(self, *, width: int, expansion: int | float = 8 / 3, multiple: int = 32) -> None:
        super().__init__()
        positive(expansion=expansion)
        whole(multiple=multiple)
        hidden = max(1, round(expansion * width / multiple)) * multiple
        self.gate_and_value = nn.Linear(width, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix the channels of each token."""
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * value)
