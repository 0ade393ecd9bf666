"""Hyena: a long convolution with an implicit filter, between two gates."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.implicit_filter import ImplicitFilter
from hybridlab.mixers.parts.short_convolution import ShortConvolution
from hybridlab.ops.conv.continued_conv import continued_conv
from hybridlab.ops.conv.fft_conv import fft_conv
from hybridlab.validate import positive, whole


class HyenaState(NamedTuple):
    """The last l = conv_size-1 inputs of the short convolution, all past inputs of the long one."""

    projected: Float[Tensor, "b l 3*d"]
    inputs: Float[Tensor, "b past d"]


class Hyena(Mixer):
    """y = W_out (x₁ ⊙ (h * u + D u)), u = x₂ ⊙ v: Hyena of order 2.

    x₁, x₂ and v are short convolutions of linear maps of x; h is an implicit filter
    (`ImplicitFilter` says how it is parametrised). The bidirectional form has a second h, which
    looks ahead, and centres the short convolution. D, the convolution's bias and the filter start
    as in the authors' code (HazyResearch/safari), and the parameters of the filter learn at
    `filter_lr` at most, as there (null: at the common rate). It differs by choice in having no bias
    in the linear maps.
    """

    kind = "convolution"
    paper = "Poli et al. 2023, 2302.10866"
    version = 2  # 2: filter, skip and bias as in the authors' code, with a rate of the filter's own
    bounded_state = False

    def __init__(
        self,
        *,
        width: int,
        causal: bool = True,
        conv_size: int = 3,
        hidden: int = 64,
        bands: int = 16,
        horizon: int = 1024,
        sine_layers: int = 3,
        sine_frequency: float = 14.0,
        filter_lr: float | None = 0.001,
    ) -> None:
        super().__init__()
        whole(conv_size=conv_size)
        positive(null="the common rate", filter_lr=filter_lr)
        self.causal = causal
        self.in_projection = nn.Linear(width, 3 * width, bias=False)
        self.convolution = ShortConvolution(width=3 * width, conv_size=conv_size, bias=True)
        bias = torch.empty(3 * width).uniform_(-(conv_size**-0.5), conv_size**-0.5)
        self.convolution.bias = tag(nn.Parameter(bias), decay=False, initialise=False)

        def new_filter() -> ImplicitFilter:
            return ImplicitFilter(
                width=width,
                hidden=hidden,
                bands=bands,
                horizon=horizon,
                sine_layers=sine_layers,
                sine_frequency=sine_frequency,
                lr=filter_lr,
            )

        self.filter = new_filter()
        self.filter_ahead = None if causal else new_filter()
        self.skip = tag(nn.Parameter(torch.randn(width)), decay=False, initialise=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences."""
        projected = self.in_projection(x)
        projected = self.convolution(projected)[0] if self.causal else self.convolution.centred(projected)
        gate, before, value = projected.chunk(3, dim=-1)
        u = before * value
        filters = (each(x.shape[1], x) for each in (self.filter, self.filter_ahead) if each is not None)
        return self._output(gate, u, fft_conv(u, *filters))

    def initial_state(self, batch: int, like: Tensor) -> HyenaState:
        """Return zero inputs of the short convolution, and no inputs of the long one."""
        return HyenaState(self.convolution.empty_past(batch, like), like.new_empty(batch, 0, len(self.skip)))

    def extend(self, x: Float[Tensor, "b n d"], state: HyenaState) -> tuple[Float[Tensor, "b n d"], HyenaState]:
        """Filter the chunk after the whole past."""
        mixed, projected = self.convolution(self.in_projection(x), state.projected)
        gate, before, value = mixed.chunk(3, dim=-1)
        u = before * value
        inputs = torch.cat([state.inputs, u.to(state.inputs.dtype)], dim=1)
        y = continued_conv(u, state.inputs, self.filter(inputs.shape[1], x))
        return self._output(gate, u, y), HyenaState(projected, inputs)

    def _output(self, gate: Tensor, u: Tensor, y: Tensor) -> Tensor:
        return self.out(gate * torch.addcmul(y, u, self.skip.to(u.dtype)))
