"""Parameters whose small relative errors grow with time: frequencies and time steps."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.mixers.base import tag


class Anchored(nn.Module):
    """A learned tensor stored as a coarse anchor (a buffer) and a fine offset (the parameter).

    The error of an angle ωΔt is t times that of ωΔ: if values near 100 are rounded to bfloat16, the
    phase is lost after a few steps. bfloat16 holds the anchor exactly, and the small offset to a
    relative error of 2⁻⁹. The offset takes no weight decay, which would pull towards the anchor,
    and the learning rate that `tag` sets by `lr` and `lr_factor`.
    """

    anchor: Tensor

    def __init__(self, value: Float[Tensor, "*shape"], lr: float | None = None, lr_factor: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("anchor", value.to(torch.bfloat16).to(value.dtype))
        offset = nn.Parameter(value - self.anchor)
        self.offset = tag(offset, decay=False, initialise=False, lr=lr, lr_factor=lr_factor)

    def forward(self, dtype: torch.dtype) -> Float[Tensor, "*shape"]:
        """Return the sum of anchor and offset in `dtype`, which must be wide enough for it."""
        return self.anchor.to(dtype) + self.offset.to(dtype)
