"""What the S4 family shares: checks, initial time steps and readouts, and the output map."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.validate import even, number, positive, whole


def check_state_size(state: int) -> None:
    """Validate the size of a state of conjugate pairs."""
    whole(state=state)
    even(state=state, why="real and imaginary parts")


def draw_log_steps(width: int, dt_min: float, dt_max: float) -> Float[Tensor, " d"]:
    """Return the logarithms of time steps, log-uniform from `dt_min` to `dt_max`."""
    positive(dt_min=dt_min)
    number(least=dt_min, dt_max=dt_max)
    return torch.empty(width).uniform_(math.log(dt_min), math.log(dt_max))


def draw_readout(width: int, state: int) -> Float[Tensor, "d n"]:
    """Return complex normal readouts of variance 1 for each conjugate pair, real parts first."""
    return torch.randn(width, state) * 0.5**0.5


def skip_and_glu(
    x: Float[Tensor, "b t d"], y: Float[Tensor, "b t d"], *, skip: Tensor, out: nn.Linear, gate: nn.Linear
) -> Float[Tensor, "b t d"]:
    """Return GLU(GELU(y + skip ⊙ x)): `out` times the sigmoid of `gate`."""
    y = F.gelu(torch.addcmul(y, x, skip.to(x.dtype)))
    return out(y) * torch.sigmoid(gate(y))
