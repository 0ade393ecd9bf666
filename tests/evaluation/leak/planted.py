"""An honest mixer to plant leaks in, with and without a decoding form."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hybridlab.evaluation.leak import Leak, mixer_leak
from hybridlab.mixers.base import Mixer

WIDTH = 16
LENGTH = 70


class LastToken(NamedTuple):
    token: Tensor


class Honest(Mixer):
    """y_t = W (x_t + x_{t-1})."""

    kind = "convolution"
    paper = "none"
    bounded_state = True

    def __init__(self, *, width: int = WIDTH) -> None:
        super().__init__()
        self.width = width
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.project = nn.Linear(width, width)

    def forward(self, x):
        return self.project(x + torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)) + self.leak(x)

    def leak(self, x):
        return torch.zeros_like(x)

    def initial_state(self, batch, like):
        return LastToken(like.new_zeros(batch, 1, self.width))

    def extend(self, x, state):
        return self.project(x + torch.cat([state.token, x[:, :-1]], dim=1)), LastToken(x[:, -1:].clone())


def without_decoding(planted: type[Mixer]) -> type[Mixer]:
    """Return the same mixer without a decoding form."""
    nothing = {"initial_state": Mixer.initial_state, "extend": Mixer.extend}
    return type(f"{planted.__name__}WithoutDecoding", (planted,), nothing)


def both(planted: list[type[Mixer]]) -> list[type[Mixer]]:
    """Return mixers with their decoding forms and without."""
    return [*planted, *map(without_decoding, planted)]


def leak_of(mixer: Mixer, length: int = LENGTH, **settings) -> Leak | None:
    """Probe a planted mixer at one length and some shorter ones."""
    lengths = [each for each in (1, 2, 7, 33, 63, 64, 65) if each < length]
    return mixer_leak(mixer, WIDTH, [*lengths, length], **settings)
