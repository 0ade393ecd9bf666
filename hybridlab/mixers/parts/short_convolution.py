"""The short depthwise convolution of several mixers."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import tag
from hybridlab.ops.conv.causal_conv import causal_conv


class ShortConvolution(nn.Module):
    """A filter of `conv_size` taps per channel, uniform in ±1/√conv_size as in PyTorch."""

    def __init__(self, *, width: int, conv_size: int, bias: bool) -> None:
        super().__init__()
        bound = conv_size**-0.5
        self.weight = tag(nn.Parameter(torch.empty(width, conv_size).uniform_(-bound, bound)), initialise=False)
        self.bias = tag(nn.Parameter(torch.zeros(width)), decay=False, initialise=False) if bias else None

    def forward(
        self, x: Float[Tensor, "b t d"], past: Float[Tensor, "b l d"] | None = None
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b l d"]]:
        """Return the filtered chunk, and its last l = conv_size-1 inputs: the next `past`."""
        return causal_conv(x, self.weight, self.bias, past)

    def with_silu(
        self, x: Float[Tensor, "b t d"], past: Float[Tensor, "b l d"] | None = None
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b l d"]]:
        """Return the SiLU of the filtered chunk, contiguous, and the `past` of the next chunk."""
        y, inputs = self(x, past)
        # The convolution may leave time innermost. Where that meets gradients in another layout,
        # SiLU is ten times as slow.
        return F.silu(y.contiguous()), inputs

    def centred(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Return the sequence filtered with centred taps; an even number has one more ahead."""
        ahead = self.weight.shape[1] // 2
        return causal_conv(F.pad(x, (0, 0, 0, ahead)), self.weight, self.bias)[0][:, ahead:]

    def empty_past(self, batch: int, like: Tensor) -> Float[Tensor, "b l d"]:
        """Return the past of the first token: zeros."""
        width, conv_size = self.weight.shape
        return like.new_zeros(batch, conv_size - 1, width)
