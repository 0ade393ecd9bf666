"""What S4 and S4D start from: time steps and readouts."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.validate import even, number, positive, whole


def check_state_size(state: int) -> None:
    """Refuse a state that is not made of pairs of conjugates."""
    whole(state=state)
    even(state=state, why="real and imaginary parts")


def draw_log_steps(width: int, dt_min: float, dt_max: float) -> Float[Tensor, " d"]:
    """Return the logarithms of steps that are log-uniform between the shortest and the longest."""
    positive(dt_min=dt_min)
    number(least=dt_min, dt_max=dt_max)
    return torch.empty(width).uniform_(math.log(dt_min), math.log(dt_max))


def draw_readout(width: int, state: int) -> Float[Tensor, "d n"]:
    """Return complex normal numbers of variance 1, one for each pair of conjugates."""
    return torch.randn(width, state) * 0.5**0.5
