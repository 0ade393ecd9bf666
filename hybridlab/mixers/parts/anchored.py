"""Parameters in which a small relative error is a large one in what they make: frequencies and time steps."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.mixers.base import tag


class Anchored(nn.Module):
    """A learned number kept as a coarse anchor, a buffer, and a fine offset from it, the parameter.

    An angle e^{iωΔt} is off by the error of ωΔ times t: numbers near 100 rounded to bfloat16 leave no phase after a few
    steps. bfloat16 holds the anchor exactly, and the offset to 2⁻⁹ of the little that it is. No weight decay: it would
    pull towards the anchor.
    """

    anchor: Tensor

    def __init__(self, value: Float[Tensor, "*shape"]) -> None:
        super().__init__()
        self.register_buffer("anchor", value.to(torch.bfloat16).to(value.dtype))
        self.offset = tag(nn.Parameter(value - self.anchor), decay=False, initialise=False)

    def forward(self, dtype: torch.dtype) -> Float[Tensor, "*shape"]:
        """Return the number in a dtype that is wide enough for the sum."""
        return self.anchor.to(dtype) + self.offset.to(dtype)
