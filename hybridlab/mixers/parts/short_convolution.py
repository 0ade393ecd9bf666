"""Short depthwise convolution, a part of several mixers."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import tag
from hybridlab.ops.conv.causal_conv import causal_conv


class ShortConvolution(nn.Module):
    """One filter of `length` taps per channel, drawn as PyTorch draws its convolutions: uniform within ±1/√length."""

    def __init__(self, *, width: int, conv_size: int, bias: bool) -> None:
        super().__init__()
        bound = conv_size**-0.5
        self.weight = tag(nn.Parameter(torch.empty(width, conv_size).uniform_(-bound, bound)), initialise=False)
        self.bias = tag(nn.Parameter(torch.zeros(width)), decay=False, initialise=False) if bias else None

    def forward(
        self, x: Float[Tensor, "b t d"], past: Float[Tensor, "b l-1 d"] | None = None
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b l-1 d"]]:
        """Return the filtered piece, and the inputs that the next piece will need as its `past`."""
        return causal_conv(x, self.weight, self.bias, past)

    def centred(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Return the row filtered from both sides: the taps reach as far ahead as back (of an even number, one less back)."""
        ahead = self.weight.shape[1] // 2
        return causal_conv(F.pad(x, (0, 0, 0, ahead)), self.weight, self.bias)[0][:, ahead:]

    def empty_past(self, batch: int, like: Tensor) -> Float[Tensor, "b l-1 d"]:
        """Return the past of a row's first token: zeros."""
        width, conv_size = self.weight.shape
        return like.new_zeros(batch, conv_size - 1, width)
