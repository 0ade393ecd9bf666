"""Readings: what is taken of a stack's outputs for each scored target, as values.

Equal readings of one intervention are taken once, however many measures ask for them.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from hybridlab.evaluation.passes.outputs import Outputs


@dataclass(frozen=True)
class Reading:
    """A number per scored target."""

    calibrated: ClassVar[bool] = False  # whether it takes something from the training split
    num_heads: ClassVar[int] = 0  # how often the head is applied, beyond once per stack that is run

    def __call__(self, outputs: Outputs) -> Float[np.ndarray, " n"]:
        """Return the numbers, in the order of the scored targets."""
        raise NotImplementedError


@dataclass(frozen=True)
class TargetNLL(Reading):
    """The negative log-likelihood in nats."""

    def __call__(self, outputs: Outputs) -> Float[np.ndarray, " n"]:
        """Return the NLL after the last layer."""
        return outputs.predict().nll


@dataclass(frozen=True)
class Correct(Reading):
    """1 where the target is the most likely token or class, else 0."""

    def __call__(self, outputs: Outputs) -> Float[np.ndarray, " n"]:
        """Return whether each prediction is right."""
        return outputs.predict().correct


@dataclass(frozen=True)
class LensNLL(Reading):
    """The NLL when the residual stream after a layer is read by the final norm and head."""

    layer: int
    num_heads = 1

    def __call__(self, outputs: Outputs) -> Float[np.ndarray, " n"]:
        """Return the NLL after the layer."""
        return outputs.predict(self.layer).nll


@dataclass(frozen=True)
class TunedLensNLL(LensNLL):
    """The same after an affine map fitted on the training split."""

    calibrated = True

    def __call__(self, outputs: Outputs) -> Float[np.ndarray, " n"]:
        """Return the NLL of the mapped stream."""
        return outputs.predict(self.layer, tuned=True).nll


NLL = TargetNLL()
CORRECT = Correct()
