"""A sample of a split's sequences, for what would take too long on all of them."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Bool

from hybridlab.tasks.batch import Batch

LEAST = 4  # sequences: one alone has no interval


def sample_sequences(counts: Sequence[int], share: float) -> list[Bool[np.ndarray, " _"]]:
    """Choose a share of the sequences of batches, at least `LEAST` or all; `counts` are the
    batches' numbers of sequences.

    The sequences are cut into stretches of neighbours, and one of each is drawn. They are in the
    order of their documents, so each document, and each part of a long one, contributes its share.
    The same choice is made each time. Where a budget pays for fewer than `LEAST`, the evaluation
    set is small, and so is the excess.
    """
    total = sum(counts)
    ends = np.linspace(0, total, max(min(total, LEAST), int(share * total)) + 1).astype(int)
    chosen = np.zeros(total, bool)
    chosen[np.random.default_rng(0).integers(ends[:-1], ends[1:])] = True
    return np.split(chosen, np.cumsum(counts)[:-1])


def regrouped(batches: Sequence[Batch], share: float, batch_size: int) -> Iterator[Batch]:
    """Yield a share of the sequences in batches of their own, each of one length and at most
    `batch_size` sequences.

    One by one they would leave most of a device idle.
    """
    chosen = sample_sequences([len(batch.inputs) for batch in batches], share)
    some = (_take(batch, wanted) for batch, wanted in zip(batches, chosen, strict=True) if wanted.any())
    for _, alike in groupby(some, key=lambda batch: batch.inputs.shape[1]):
        whole = _concatenate(list(alike))
        for first in range(0, len(whole.inputs), batch_size):
            yield _take(whole, slice(first, first + batch_size))


def first_sequences(batch: Batch, count: int) -> Batch:
    """Return the first sequences of a batch."""
    return _take(batch, slice(0, count))


def _take(batch: Batch, wanted: Bool[np.ndarray, " b"] | slice) -> Batch:
    index = wanted if isinstance(wanted, slice) else torch.from_numpy(wanted)
    documents = None if batch.documents is None else batch.documents[index]
    slices = {name: fact[index] for name, fact in batch.slices.items()}
    num_bytes = None if batch.num_bytes is None else batch.num_bytes[index]
    return Batch(batch.inputs[index], batch.targets[index], slices, documents, num_bytes)


def _concatenate(batches: Sequence[Batch]) -> Batch:
    one = batches[0]
    documents = None if one.documents is None else torch.cat([batch.documents for batch in batches])  # type: ignore[misc]
    num_bytes = None if one.num_bytes is None else torch.cat([batch.num_bytes for batch in batches])  # type: ignore[misc]
    slices = {name: torch.cat([batch.slices[name] for batch in batches]) for name in one.slices}
    return Batch(
        torch.cat([batch.inputs for batch in batches]),
        torch.cat([batch.targets for batch in batches]),
        slices,
        documents,
        num_bytes,
    )
