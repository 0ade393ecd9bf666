"""Convolution filters computed from the distance by a small network."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.mixers.base import tag
from hybridlab.ops.precision import accumulation_dtype, autocast_off
from hybridlab.ops.ssm.flush_to_zero import flushed_exp
from hybridlab.validate import positive, whole

# Decay over one horizon: the window falls to 1/100 after 1.5 to 0.3 horizons.
SLOWEST, FASTEST = math.log(100) / 1.5, math.log(100) / 0.3
LOWEST = 1e-4  # the first frequency, as in the authors' code


class ImplicitFilter(nn.Module):
    """h(l) = window(l) · FFN(features(l)) for any distance l (Hyena, 2302.10866, section 3.3).

    The FFN has `sine_layers` layers whose activation is sin(ω ⊙ ·), with ω learned, starting at
    `sine_frequency` and shared by all layers, and a linear map. The features of a distance are its
    share of the horizon and the real and imaginary parts of e^(-2πi f l / horizon) for the `bands`
    frequencies f from 0 to bands - 1. The window falls exponentially, at a fixed rate of its own in
    each channel. All of it starts as in the authors' code (HazyResearch/safari), and is as there
    exempt from weight decay and learned at `lr` at most (null: at the common rate).

    It differs by choice in two things. The authors divide distances by the length of the longest
    sequence; with a fixed `horizon` a distance has the same features in every sequence, and the
    filter continues beyond it. And they learn the features too.

    Parameters stay in float32 at least when the module is cast: rounding them to bfloat16 would
    change a third of the filter, because each layer of sines multiplies the errors of the one
    before.
    """

    keeps_precision = True  # parameters may be wider than those of the stack

    def __init__(
        self,
        *,
        width: int,
        hidden: int,
        bands: int,
        horizon: int,
        sine_layers: int,
        sine_frequency: float,
        lr: float | None,
    ) -> None:
        super().__init__()
        whole(hidden=hidden, bands=bands, horizon=horizon, sine_layers=sine_layers)
        positive(sine_frequency=sine_frequency)
        self.bands, self.horizon = bands, horizon
        widths = [1 + 2 * bands, *[hidden] * sine_layers]
        self.layers: Any = nn.ModuleList(map(nn.Linear, widths[:-1], widths[1:]))
        self.frequency = nn.Parameter(torch.full((hidden,), float(sine_frequency)))
        self.last = nn.Linear(hidden, width, bias=False)
        for parameter in self.parameters():
            tag(parameter, decay=False, initialise=False, lr=lr)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move and cast the parameters, but not to a narrower type than float32."""

        def wide(tensor: Tensor) -> Tensor:
            applied = fn(tensor)
            return tensor.to(applied.device) if applied.dtype.itemsize < torch.float32.itemsize else applied

        return super()._apply(wide, recurse)

    def forward(self, length: int, like: Tensor) -> Float[Tensor, "d l"]:
        """Return the first `length` taps, in float32 at least: bfloat16 rounds large distances."""
        dtype = accumulation_dtype(like)
        with autocast_off(like):
            distance = torch.arange(length, device=like.device, dtype=dtype)[:, None]
            share = distance / max(1, self.horizon - 1)
            bands, rates = (
                torch.linspace(*ends, device=like.device, dtype=dtype)
                for ends in ((LOWEST, self.bands - 1, self.bands), (SLOWEST, FASTEST, self.last.out_features))
            )
            turns = 2 * math.pi * distance / self.horizon * bands
            x = torch.cat([share, turns.cos(), -turns.sin()], dim=-1)
            for layer in self.layers:
                x = nn.functional.linear(x, layer.weight.to(dtype), layer.bias.to(dtype))
                x = torch.sin(self.frequency.to(dtype) * x)
            window = flushed_exp(-share.mT * rates[:, None])
            return self.last.weight.to(dtype) @ x.mT * window
