"""Convolution filters computed from the distance by a small network."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.mixers.base import tag
from hybridlab.ops.precision import accumulation_dtype, autocast_off
from hybridlab.ops.ssm.flush_to_zero import flushed_exp
from hybridlab.validate import positive, whole

# Decay over one horizon: the window falls to 1/100 after 1.5 or after 0.3 horizons.
SLOWEST, FASTEST = math.log(100) / 1.5, math.log(100) / 0.3


class ImplicitFilter(nn.Module):
    """h(l) = window(l) · FFN(features(l)) for any distance l (Hyena, 2302.10866, section 3.3).

    The FFN has sine activations. The features of a distance are l / horizon and the sines and
    cosines of the first `bands` multiples of 2π l / horizon. The paper divides by the length of the
    longest sequence; with a fixed `horizon` a distance has the same features in every sequence, and
    the filter continues beyond it. The window decays exponentially, at a different rate in each
    channel; dividing it by its norm keeps outputs at the scale of inputs.
    """

    def __init__(self, *, width: int, hidden: int, bands: int, horizon: int, sine_frequency: float) -> None:
        super().__init__()
        whole(hidden=hidden, bands=bands, horizon=horizon)
        positive(sine_frequency=sine_frequency)
        self.bands, self.horizon, self.sine_frequency = bands, horizon, sine_frequency
        self.first = nn.Linear(1 + 2 * bands, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, width, bias=False)
        self.decay = tag(nn.Parameter(torch.linspace(SLOWEST, FASTEST, width).log()), decay=False, initialise=False)
        for layer in (self.first, self.second):
            tag(layer.bias, decay=False)

    def forward(self, length: int, like: Tensor) -> Float[Tensor, "d l"]:
        """Return the first `length` taps, in float32 at least: bfloat16 rounds large distances."""
        dtype = accumulation_dtype(like)
        with autocast_off(like):
            share = torch.arange(length, device=like.device, dtype=dtype)[:, None] / self.horizon
            turns = 2 * math.pi * share * torch.arange(1, self.bands + 1, device=like.device, dtype=dtype)
            x = torch.cat([share, turns.cos(), turns.sin()], dim=-1)
            for layer in (self.first, self.second):
                x = torch.sin(
                    self.sine_frequency * nn.functional.linear(x, layer.weight.to(dtype), layer.bias.to(dtype))
                )
            rate = self.decay.to(dtype).exp()[:, None]
            window = flushed_exp(-share.mT * rate) * (2 * rate / self.horizon).clamp(max=1).sqrt()
            return self.last.weight.to(dtype) @ x.mT * window
