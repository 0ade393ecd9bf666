"""Hyena of order 2, one distance and one token at a time."""

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from tests.mixers.equations import filtered
from tests.mixers.reference import Reference


class Filter(nn.Module):
    """h(n) = window(n) · FFN(features(n)), with sines whose frequencies all layers share."""

    def __init__(self, *, width: int, hidden: int, bands: int, horizon: int, layers: int, frequency: float) -> None:
        super().__init__()
        self.horizon, self.bands = horizon, bands
        sizes = [2 * bands + 1, *[hidden] * layers]
        self.inner = nn.ModuleList(nn.Linear(*each) for each in pairwise(sizes))
        self.freq = nn.Parameter(torch.full((hidden,), frequency))
        self.last = nn.Linear(hidden, width, bias=False)

    def forward(self, t: int) -> Tensor:
        """Return the weights of the first t distances, t d."""
        width = self.last.out_features
        frequencies = [1e-4 + band * (self.bands - 1 - 1e-4) / max(self.bands - 1, 1) for band in range(self.bands)]
        slow, fast = math.log(100) / 1.5, math.log(100) / 0.3
        rates = [slow + channel * (fast - slow) / (width - 1) for channel in range(width)]
        taps = []
        for n in range(t):
            share, angle = n / (self.horizon - 1), 2 * math.pi * n / self.horizon
            waves = [math.cos(angle * f) for f in frequencies] + [-math.sin(angle * f) for f in frequencies]
            z = self.freq.new_tensor([share, *waves])
            for layer in self.inner:
                z = torch.sin(self.freq * layer(z))
            taps.append(self.last(z) * self.freq.new_tensor([math.exp(-rate * share) for rate in rates]))
        return torch.stack(taps)

    def named(self, name: str) -> dict[str, Tensor]:
        layers = {
            f"{name}.layers.{i}.{part}": each
            for i, layer in enumerate(self.inner)
            for part, each in layer.named_parameters()
        }
        return {**layers, f"{name}.frequency": self.freq, f"{name}.last.weight": self.last.weight}


class ImplicitConvolution(Reference):
    """y = W (x₁ ⊙ (h * u + D u)) with u = x₂ ⊙ v; x₁, x₂ and v are short convolutions."""

    mixer = "hyena"
    source = "2302.10866, definition 3.1 for order 2 and section 3.3; features and windows as in HazyResearch/safari"
    choices = "no biases of linear maps; the features are not learnt, and a distance has the same ones at any length"
    cases = (
        {"conv_size": 3, "hidden": 8, "bands": 4, "horizon": 64, "sine_layers": 3, "sine_frequency": 14.0},
        {"conv_size": 1, "hidden": 8, "bands": 2, "horizon": 16, "sine_layers": 1, "sine_frequency": 1.0},
        {
            "conv_size": 3,
            "hidden": 8,
            "bands": 3,
            "horizon": 1024,
            "sine_layers": 2,
            "sine_frequency": 10.0,
            "causal": False,
        },
    )
    lengths = (1, 7, 33, 65)

    def __init__(
        self,
        *,
        width: int,
        conv_size: int,
        hidden: int,
        bands: int,
        horizon: int,
        sine_layers: int,
        sine_frequency: float,
        causal: bool = True,
    ) -> None:
        super().__init__(width=width)
        sizes = {"hidden": hidden, "bands": bands, "horizon": horizon, "layers": sine_layers}
        self.h, self.h_ahead = (Filter(width=width, frequency=sine_frequency, **sizes) for _ in range(2))
        self.h_ahead = None if causal else self.h_ahead
        self.reach = 0 if causal else conv_size // 2  # taps of the short convolution ahead of the token
        self.maps, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.short, self.short_bias = (
            nn.Parameter(torch.randn(3 * width, conv_size)),
            nn.Parameter(torch.randn(3 * width)),
        )
        self.D = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        t, newest_first = x.shape[1], self.short.mT.flip(0)
        ahead = newest_first[: self.reach].flip(0) if self.reach else None
        gate, before, v = (filtered(self.maps(x), newest_first[self.reach :], ahead) + self.short_bias).chunk(3, dim=-1)
        u = before * v
        y = filtered(u, self.h(t), None if self.h_ahead is None else self.h_ahead(t)) + self.D * u
        return self.out(gate * y)

    def weights(self) -> Mapping[str, Tensor]:
        return {
            **self.h.named("filter"),
            **({} if self.h_ahead is None else self.h_ahead.named("filter_ahead")),
            "in_projection.weight": self.maps.weight,
            "convolution.weight": self.short,
            "convolution.bias": self.short_bias,
            "skip": self.D,
            "out.weight": self.out.weight,
        }
