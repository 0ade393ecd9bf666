"""Documents and positions of a share of a split's rows, for what looks at one position at a time."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from hybridlab.evaluation.passes.sampling import chosen_rows
from hybridlab.stack.model import Stack
from hybridlab.tasks.batch import IGNORED, Batch


class Sample(NamedTuple):
    """A row, or the part of it that is one document, on its own."""

    tokens: Int[Tensor, "1 t"]
    targets: Int[Tensor, "1 t"] | Int[Tensor, "1"]
    places: Int[Tensor, " m"]  # that something is predicted from
    at: Int[Tensor, " n"]  # some of these, in order
    unit: int  # the document or example


def samples(stack: Stack, batches: Sequence[Batch], share: float, positions: int, device: torch.device) -> list[Sample]:
    """Draw a share of the rows, as `chosen_rows` does, and at most `positions` places in each of their documents.

    The same ones are drawn each time.
    """
    generator = np.random.default_rng(0)
    drawn = []
    for batch, chosen in zip(batches, chosen_rows([len(batch.inputs) for batch in batches], share), strict=True):
        for row in chosen.nonzero()[0].tolist():
            for tokens, targets, places, unit in _documents(stack, batch, row):
                at = places[np.sort(generator.permutation(len(places))[:positions])]
                tensors = (part.to(device) for part in (tokens[None], targets[None], places, at))
                drawn.append(Sample(*tensors, unit=unit))
    return drawn


def check_share(share: float) -> None:
    """Refuse a share of the rows that is none."""
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: a share of the rows is needed, above 0 and at most 1")


def _documents(stack: Stack, batch: Batch, row: int) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """Yield the documents of a row in which something is predicted: tokens, targets, places, and the number of the unit."""
    targets, units = batch.targets[row], batch.slices["document"][row]
    numbers = torch.zeros_like(batch.inputs[row]) if batch.documents is None else batch.documents[row]
    _, runs = numbers.unique_consecutive(return_inverse=True)
    for run in runs[numbers >= 0].unique().tolist():
        inside = runs == run
        tokens, own, unit = batch.inputs[row, inside], targets, units
        if targets.ndim:
            own, unit = targets[inside], units[inside]
        scored = own != IGNORED
        if scored.any():
            places = stack.reading.positions(scored, torch.ones_like(tokens, dtype=torch.bool))
            yield tokens, own, places.nonzero()[:, 0], int(unit[scored][0])
