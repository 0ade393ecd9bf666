"""A short convolution between two gates."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.parts.short_convolution import ShortConvolution
from hybridlab.validate import whole


class GatedConvState(NamedTuple):
    """The last l = conv_size-1 inputs of the convolution."""

    inputs: Float[Tensor, "b l d"]


class GatedConv(Mixer):
    """y = W_out (C ⊙ conv(B ⊙ v)), B, C, v linear maps of x, conv short, causal, depthwise."""

    kind = "convolution"
    paper = "Liquid AI 2025 (LFM2), 2511.23404; after H3, 2212.14052"
    bounded_state = True

    def __init__(self, *, width: int, conv_size: int = 3) -> None:
        super().__init__()
        whole(conv_size=conv_size)
        self.in_projection = nn.Linear(width, 3 * width, bias=False)
        self.convolution = ShortConvolution(width=width, conv_size=conv_size, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences."""
        return self._mix(x, None)[0]

    def initial_state(self, batch: int, like: Tensor) -> GatedConvState:
        """Return zero inputs."""
        return GatedConvState(self.convolution.empty_past(batch, like))

    def extend(self, x: Float[Tensor, "b n d"], state: GatedConvState) -> tuple[Float[Tensor, "b n d"], GatedConvState]:
        """Filter the chunk after the inputs just before it."""
        y, inputs = self._mix(x, state.inputs)
        return y, GatedConvState(inputs)

    def _mix(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        before, after, value = self.in_projection(x).chunk(3, dim=-1)
        filtered, inputs = self.convolution(before * value, past)
        return self.out(after * filtered), inputs
