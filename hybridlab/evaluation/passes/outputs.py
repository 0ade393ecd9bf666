"""What a stack, intact or changed, makes of one batch: read lazily, and each thing once."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hybridlab.evaluation.passes.calibration import Calibration
from hybridlab.evaluation.passes.sums import of_targets
from hybridlab.ops.head_cross_entropy import LOGITS
from hybridlab.stack.model import Stack
from hybridlab.tasks.batch import IGNORED, Batch


class Prediction(NamedTuple):
    """How the scored targets of a batch are predicted, in the order of a boolean mask over its
    targets.
    """

    nll: Float[np.ndarray, " n"]  # nats
    correct: Float[np.ndarray, " n"]  # 1 where the target is the most likely token or class


class Outputs:
    """The residual streams of one batch, and what the final norm and the head read off them.

    `batch` is on the device of the streams; everything that is returned per target is in the order
    of its scored targets.
    """

    def __init__(
        self, stack: Stack, batch: Batch, streams: Sequence[Float[Tensor, "b t d"]], calibration: Calibration
    ) -> None:
        self.stack = stack
        self.batch = batch
        self.streams = streams  # the last ones of the stack: [-1] is the stream after the last layer
        self._calibration = calibration
        self._predictions: dict[tuple[int, bool], Prediction] = {}

    @cached_property
    def targets(self) -> Int[np.ndarray, " n"]:
        """The scored targets."""
        return self.batch.targets[self.batch.targets != IGNORED].cpu().numpy()

    @property
    def num_layers(self) -> int:
        """The number of layers of the stack."""
        return len(self.stack.layers)

    def stream(self, after: int) -> Float[Tensor, "b t d"]:
        """Return the residual stream after a layer; in front of the first changed layer it is that
        of the intact stack.
        """
        return self.streams[after - self.num_layers]

    def predict(self, after: int | None = None, *, tuned: bool = False) -> Prediction:
        """Predict the targets from the residual stream after a layer (by default the last), through
        the final norm and head.

        `tuned` applies the tuned lens first: an affine map fitted on the training split.
        """
        layer = self.num_layers - 1 if after is None else after
        if (layer, tuned) not in self._predictions:
            x = self.stream(layer)
            x = self._calibration.mapped(layer, x) if tuned else x
            self._predictions[layer, tuned] = predict(self.stack, x, self.batch)
        return self._predictions[layer, tuned]

    def at_targets(self, x: Float[Tensor, "b t ..."]) -> Float[Tensor, "n ..."]:
        """Return the values at the scored targets' own positions, of a task that predicts at every
        position.
        """
        return x[self.batch.targets != IGNORED]

    def fact(self, name: str) -> Int[np.ndarray, " n"]:
        """Return what a slice says about each scored target."""
        return of_targets(self.batch.slices[name], self.batch._replace(targets=self.batch.targets.cpu()))


def predict(stack: Stack, x: Float[Tensor, "b t d"], batch: Batch) -> Prediction:
    """Predict the targets of a batch, which is on the device of `x`, from the residual stream `x`
    after some layer.
    """
    scored = batch.targets != IGNORED
    pooled, targets = stack.pooled(x, batch.documents)[scored], batch.targets[scored]
    chunk = max(1, LOGITS // stack.head.out_features)
    found = [
        _scored(stack.logits(some), wanted)
        for some, wanted in zip(pooled.split(chunk), targets.split(chunk), strict=True)
    ]
    return Prediction(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _scored(logits: Float[Tensor, "n c"], targets: Int[Tensor, " n"]) -> tuple[np.ndarray, np.ndarray]:
    nll = F.cross_entropy(logits.float(), targets, reduction="none")
    correct: Any = logits.argmax(-1) == targets
    return nll.double().cpu().numpy(), correct.double().cpu().numpy()
