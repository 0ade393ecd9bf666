"""A short convolution on its own: the cheapest local mixer."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.parts.short_convolution import ShortConvolution
from hybridlab.validate import whole


class ShortConvState(NamedTuple):
    """The last l = conv_size-1 inputs of the convolution."""

    inputs: Float[Tensor, "b l d"]


class ShortConv(Mixer):
    """y = W_out SiLU(conv(W_in x)), with a short depthwise convolution.

    This is what Mamba and DeltaNet apply before their recurrence, without the recurrence. The
    bidirectional form centres the taps on each token.
    """

    kind = "convolution"
    paper = "Arora et al. 2023 (Zoology), 2312.04927: the short convolution as a baseline"
    bounded_state = True

    def __init__(self, *, width: int, causal: bool = True, conv_size: int = 4) -> None:
        super().__init__()
        whole(conv_size=conv_size)
        self.causal = causal
        self.in_projection = nn.Linear(width, width, bias=False)
        self.convolution = ShortConvolution(width=width, conv_size=conv_size, bias=True)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences."""
        u = self.in_projection(x)
        return self._output(self.convolution(u)[0] if self.causal else self.convolution.centred(u))

    def initial_state(self, batch: int, like: Tensor) -> ShortConvState:
        """Return zero inputs."""
        return ShortConvState(self.convolution.empty_past(batch, like))

    def extend(self, x: Float[Tensor, "b n d"], state: ShortConvState) -> tuple[Float[Tensor, "b n d"], ShortConvState]:
        """Filter the chunk after the inputs just before it."""
        y, inputs = self.convolution(self.in_projection(x), state.inputs)
        return self._output(y), ShortConvState(inputs)

    def _output(self, y: Tensor) -> Tensor:
        return self.out(F.silu(y))
