"""The short causal convolution that several mixers contain."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.mixers.base import tag
from hybridlab.ops.causal_conv import causal_conv


class ShortConvolution(nn.Module):
    """One filter of `length` taps per channel, over a token and those just before it."""

    def __init__(self, *, width: int, length: int, bias: bool) -> None:
        super().__init__()
        reach = length**-0.5
        self.weight = tag(nn.Parameter(torch.empty(width, length).uniform_(-reach, reach)), initialise=False)
        self.bias = tag(nn.Parameter(torch.zeros(width)), decay=False, initialise=False) if bias else None

    def forward(
        self, x: Float[Tensor, "b t d"], past: Float[Tensor, "b l-1 d"] | None = None
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b l-1 d"]]:
        """Return the filtered piece, and the inputs that the next piece will need as its `past`."""
        return causal_conv(x, self.weight, self.bias, past)

    def empty_past(self, batch: int, like: Tensor) -> Float[Tensor, "b l-1 d"]:
        """Return the past of a row's first token: zeros."""
        width, length = self.weight.shape
        return like.new_zeros(batch, length - 1, width)
