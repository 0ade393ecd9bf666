"""What S4 and S4D start from: time steps and readouts."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.mixers.base import check_counts


def check_state_size(state: int) -> None:
    """Refuse a state that is not made of pairs of conjugates."""
    check_counts(state=state)
    if state % 2:
        raise ValueError(f"state={state}: must be even, for it is pairs of real and imaginary parts")


def draw_log_steps(width: int, shortest_step: float, longest_step: float) -> Float[Tensor, " d"]:
    """Return the logarithms of steps that are log-uniform between the shortest and the longest."""
    if not shortest_step > 0:
        raise ValueError(f"shortest_step={shortest_step}: a number above 0 is needed")
    if not longest_step >= shortest_step:
        raise ValueError(f"longest_step={longest_step}: must not be below shortest_step, {shortest_step}")
    return torch.empty(width).uniform_(math.log(shortest_step), math.log(longest_step))


def draw_readout(width: int, state: int) -> Float[Tensor, "d n"]:
    """Return complex normal numbers of variance 1, one for each pair of conjugates."""
    return torch.randn(width, state) * 0.5**0.5
