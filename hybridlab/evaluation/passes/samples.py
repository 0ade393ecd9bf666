"""Documents of a share of a split's sequences, and positions in them, for what looks at one
position at a time.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from hybridlab.evaluation.passes.context import Context
from hybridlab.evaluation.passes.sampling import sample_sequences
from hybridlab.stack.model import Stack
from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.tasks.slices import DOCUMENT


class Sample(NamedTuple):
    """A sequence, or the part of it that is one document, on its own."""

    tokens: Int[Tensor, "1 t"]
    targets: Int[Tensor, "1 t"] | Int[Tensor, "1"]
    positions: Int[Tensor, " m"]  # that something is predicted from
    order: Int[np.ndarray, " m"]  # a random order of these
    unit: int  # the document or example

    def some_positions(self, most: int) -> Int[Tensor, " n"]:
        """Return at most so many of the positions, drawn at random, in the order of the
        sequence."""
        return self.positions[np.sort(self.order[:most])]


def draw_samples(context: Context, share: float) -> list[Sample]:
    """Draw a share of the sequences, as `sample_sequences` does; the same ones are drawn each
    time."""
    generator = np.random.default_rng(0)
    counts = [len(batch.inputs) for batch in context.batches]
    drawn = []
    for batch, chosen in zip(context.batches, sample_sequences(counts, share), strict=True):
        for index in chosen.nonzero()[0].tolist():
            for tokens, targets, positions, unit in _documents(context.stack, batch, index):
                tensors = (part.to(context.device) for part in (tokens[None], targets[None], positions))
                drawn.append(Sample(*tensors, order=generator.permutation(len(positions)), unit=unit))
    return drawn


def num_units(samples: list[Sample]) -> int:
    """Return one more than the largest number of a unit."""
    return 1 + max((sample.unit for sample in samples), default=0)


def _documents(stack: Stack, batch: Batch, index: int) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """Yield the documents of a sequence in which something is predicted: tokens, targets,
    positions, and their unit.
    """
    targets, units = batch.targets[index], batch.slices[DOCUMENT.name][index]
    numbers = torch.zeros_like(batch.inputs[index]) if batch.documents is None else batch.documents[index]
    _, runs = numbers.unique_consecutive(return_inverse=True)
    for run in runs[numbers >= 0].unique().tolist():
        inside = runs == run
        tokens, own, unit = batch.inputs[index, inside], targets, units
        if targets.ndim:
            own, unit = targets[inside], units[inside]
        scored = own != IGNORED
        if scored.any():
            positions = stack.pooling.positions(scored, torch.ones_like(tokens, dtype=torch.bool))
            yield tokens, own, positions.nonzero()[:, 0], int(unit[scored][0])
