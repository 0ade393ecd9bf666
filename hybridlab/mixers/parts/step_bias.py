"""The initial bias of time steps."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

SHORTEST_STEP, LONGEST_STEP = 1e-3, 1e-1


def draw_step_bias(count: int) -> Float[Tensor, " n"]:
    """Return the inverse softplus of log-uniform time steps (Mamba, 2312.00752)."""
    step = torch.empty(count).uniform_(math.log(SHORTEST_STEP), math.log(LONGEST_STEP)).exp()
    return step + torch.log(-torch.expm1(-step))
