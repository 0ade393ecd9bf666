"""Interventions: changes of a trained stack for the time of a measurement, as values.

Equal interventions are run once, however many measures ask for them.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import ClassVar

from hybridlab.evaluation.passes.calibration import Calibration
from hybridlab.stack.interventions import Part, blocked, mean_ablated, zero_ablated
from hybridlab.stack.model import Stack


@dataclass(frozen=True)
class Intervention:
    """A change of the mixers, or of the channel mixers, of some layers; `only` names one part of
    parallel mixers.

    The layers are in order: everything in front of the first one stays as it is in the intact
    stack, and is not run again.
    """

    layers: tuple[int, ...]
    part: Part = "mixer"
    only: str | None = None

    calibrated: ClassVar[bool] = False  # whether it takes something from the training split

    def applied(self, stack: Stack, calibration: Calibration) -> AbstractContextManager[None]:
        """Change the eager stack while the block runs."""
        raise NotImplementedError

    def num_layers_run(self, num_layers: int) -> int:
        """Return how many layers a pass costs, in a stack of `num_layers`."""
        return num_layers - self.layers[0]


@dataclass(frozen=True)
class Intact(Intervention):
    """No change."""

    layers: tuple[int, ...] = ()

    def applied(self, stack: Stack, calibration: Calibration) -> AbstractContextManager[None]:
        """Leave the stack as it is."""
        return _unchanged()

    def num_layers_run(self, num_layers: int) -> int:
        """Return 0: the intact stack is run in any case."""
        return 0


INTACT = Intact()


@dataclass(frozen=True)
class ZeroAblation(Intervention):
    """The mixers add nothing to the residual stream."""

    def applied(self, stack: Stack, calibration: Calibration) -> AbstractContextManager[None]:
        """Replace the outputs by zeros."""
        return zero_ablated(stack, self.layers, self.part, self.only)


@dataclass(frozen=True)
class MeanAblation(Intervention):
    """The mixers add their mean output over training positions (arXiv:2211.00593)."""

    calibrated = True

    def applied(self, stack: Stack, calibration: Calibration) -> AbstractContextManager[None]:
        """Replace the outputs by their means."""
        return mean_ablated(stack, self.layers, self.part, calibration.means, self.only)


@dataclass(frozen=True)
class LimitedReach(Intervention):
    """The mixers see the `block` tokens before each position, and fewer than 2 `block`."""

    block: int = 1

    def applied(self, stack: Stack, calibration: Calibration) -> AbstractContextManager[None]:
        """Run the mixers over windows of two blocks."""
        return blocked(stack, self.layers, self.block, self.only)

    def num_layers_run(self, num_layers: int) -> int:
        """Return the layers run; a mixer that reads windows of two blocks reads everything
        twice."""
        return super().num_layers_run(num_layers) + len(self.layers)


@contextmanager
def _unchanged() -> Iterator[None]:
    yield
