"""A long convolution with an explicit filter: one weight for each channel and distance."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer, tag
from hybridlab.ops.conv.continued_conv import continued_conv
from hybridlab.ops.conv.fft_conv import fft_conv
from hybridlab.validate import positive, whole

SHORTEST, LONGEST = 0.02, 0.5  # reach of the filters at initialisation, as shares of their length


class LongConvState(NamedTuple):
    """The last l = conv_size-1 inputs of the convolution: all that the filter reaches."""

    inputs: Float[Tensor, "b l d"]


class LongConv(Mixer):
    """y = W_out GELU(K * u + D u), u = W_in x, with a filter K of `conv_size` taps per channel.

    Each tap is a parameter, and learns at `filter_lr` at most (null: at the common rate) without
    weight decay, as in the authors' code (HazyResearch/safari), where D starts random too. The
    bidirectional form has a second filter, which looks ahead.

    It differs by choice in this: filters start as exponentially decaying noise of norm 1, with
    rates spread geometrically over the channels, there with a standard deviation of 0.002 or 0.02;
    their squash, smoothing and dropout are left out; W_in precedes the convolution, and no GLU
    follows it.
    """

    kind = "convolution"
    paper = "Fu et al. 2023, 2302.06646"
    version = 2  # 2: no weight decay and a smaller learning rate for the filter, random skip
    bounded_state = True
    free_sizes = ("conv_size",)

    def __init__(
        self, *, width: int, causal: bool = True, conv_size: int = 256, filter_lr: float | None = 0.001
    ) -> None:
        super().__init__()
        whole(conv_size=conv_size)
        positive(null="the common rate", filter_lr=filter_lr)
        self.causal, self.conv_size = causal, conv_size
        self.in_projection = nn.Linear(width, width, bias=False)
        filters = [nn.Parameter(_draw_filter(width, conv_size)) for _ in range(1 if causal else 2)]
        for each in filters:
            tag(each, decay=False, initialise=False, lr=filter_lr)
        self.filter, self.filter_ahead = filters[0], None if causal else filters[1]
        self.skip = tag(nn.Parameter(torch.randn(width)), decay=False, initialise=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences."""
        u = self.in_projection(x)
        return self._output(u, fft_conv(u, self.filter, self.filter_ahead))

    def initial_state(self, batch: int, like: Tensor) -> LongConvState:
        """Return zero inputs."""
        return LongConvState(like.new_zeros(batch, self.conv_size - 1, len(self.skip)))

    def extend(self, x: Float[Tensor, "b n d"], state: LongConvState) -> tuple[Float[Tensor, "b n d"], LongConvState]:
        """Filter the chunk after the inputs that the filter still reaches."""
        u = self.in_projection(x)
        y = continued_conv(u, state.inputs, self.filter)
        joined = torch.cat([state.inputs, u.to(state.inputs.dtype)], dim=1)
        return self._output(u, y), LongConvState(joined[:, joined.shape[1] - self.conv_size + 1 :].clone())

    def _output(self, u: Tensor, y: Tensor) -> Tensor:
        return self.out(F.gelu(torch.addcmul(y, u, self.skip.to(u.dtype))))


def _draw_filter(width: int, length: int) -> Float[Tensor, "d l"]:
    """Return noise with envelope e^{-j/reach}, of norm 1 on average."""
    reach = torch.linspace(math.log(SHORTEST * length), math.log(LONGEST * length), width).exp()[:, None]
    envelope = (-torch.arange(length) / reach).exp()
    return torch.randn(width, length) * envelope / envelope.norm(dim=-1, keepdim=True)
