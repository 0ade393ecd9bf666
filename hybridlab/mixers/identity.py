"""No mixing at all: the control."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from hybridlab.mixers.base import Mixer


class IdentityState(NamedTuple):
    """Nothing: no element per sequence."""

    nothing: Float[Tensor, "b 0"]


class Identity(Mixer):
    """y = 0, so that x + mixer(norm(x)) = x: shows what it costs not to mix."""

    kind = "none"
    paper = "none: a control"
    bounded_state = True

    def __init__(self, *, width: int) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Return zeros that depend on x, so that a zero gradient flows."""
        return 0 * x

    def initial_state(self, batch: int, like: Tensor) -> IdentityState:
        """Return an empty state."""
        return IdentityState(like.new_empty(batch, 0))

    def extend(self, x: Float[Tensor, "b n d"], state: IdentityState) -> tuple[Float[Tensor, "b n d"], IdentityState]:
        """Return zeros."""
        return 0 * x, state
