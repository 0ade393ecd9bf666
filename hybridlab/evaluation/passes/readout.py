"""The targets of a batch, scored by what the final norm and the head read off a residual stream."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.head_cross_entropy import LOGITS
from hybridlab.stack.model import Stack
from hybridlab.tasks.batch import IGNORED, Batch


class Readout(NamedTuple):
    """The scored targets of a batch, in the order of a boolean mask over its targets."""

    nll: Float[np.ndarray, " n"]  # nats
    correct: Float[np.ndarray, " n"]  # 1 where the target is the likeliest token or class


def readout(stack: Stack, x: Float[Tensor, "b t d"], batch: Batch) -> Readout:
    """Score the targets of a batch, which is on the device of `x`, by the residual stream `x` after some layer."""
    scored = batch.targets != IGNORED
    pooled, targets = stack.pooled(x, batch.documents)[scored], batch.targets[scored]
    pieces = max(1, LOGITS // stack.head.out_features)
    read = [
        _scored(stack.logits(some), wanted)
        for some, wanted in zip(pooled.split(pieces), targets.split(pieces), strict=True)
    ]
    return Readout(*(np.concatenate(parts) for parts in zip(*read, strict=True)))


def _scored(logits: Float[Tensor, "n c"], targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    nll = F.cross_entropy(logits.float(), targets, reduction="none")
    correct = logits.argmax(-1) == targets
    return nll.double().cpu().numpy(), correct.double().cpu().numpy()


def moved(batch: Batch, device: torch.device) -> Batch:
    """Return a batch whose inputs, targets and documents are on a device."""
    documents = None if batch.documents is None else batch.documents.to(device)
    return batch._replace(inputs=batch.inputs.to(device), targets=batch.targets.to(device), documents=documents)
