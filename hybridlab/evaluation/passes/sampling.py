"""Some rows of a split, for what would take too long on all of them."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Bool

from hybridlab.tasks.batch import Batch

LEAST = 4  # rows: of one there is no interval


def chosen_rows(rows: Sequence[int], share: float) -> list[Bool[np.ndarray, " b"]]:
    """Choose a share of the rows of batches, at least `LEAST` or all: one by chance out of each stretch of neighbours.

    Rows are in the order of their documents, so that each document, and each part of a long one, gives its share. `rows` are
    the numbers of rows of the batches; the same choice is made each time. Where a budget is worth fewer rows than the least,
    the evaluation set is small, and so is what they take beyond it.
    """
    total = sum(rows)
    ends = np.linspace(0, total, max(min(total, LEAST), int(share * total)) + 1).astype(int)
    chosen = np.zeros(total, bool)
    chosen[np.random.default_rng(0).integers(ends[:-1], ends[1:])] = True
    return np.split(chosen, np.cumsum(rows)[:-1])


def regrouped(batches: Sequence[Batch], share: float, at_a_time: int) -> Iterator[Batch]:
    """Yield a share of the rows of batches in batches of their own, of one length each and at most `at_a_time` rows.

    One by one they would leave most of a device idle.
    """
    chosen = chosen_rows([len(batch.inputs) for batch in batches], share)
    some = (_rows(batch, rows) for batch, rows in zip(batches, chosen, strict=True) if rows.any())
    for _, alike in groupby(some, key=lambda batch: batch.inputs.shape[1]):
        whole = _joined(list(alike))
        for first in range(0, len(whole.inputs), at_a_time):
            yield _rows(whole, slice(first, first + at_a_time))


def _rows(batch: Batch, rows: Bool[np.ndarray, " b"] | slice) -> Batch:
    index = rows if isinstance(rows, slice) else torch.from_numpy(rows)
    documents = None if batch.documents is None else batch.documents[index]
    slices = {name: fact[index] for name, fact in batch.slices.items()}
    return Batch(batch.inputs[index], batch.targets[index], slices, documents)


def _joined(batches: Sequence[Batch]) -> Batch:
    one = batches[0]
    documents = None if one.documents is None else torch.cat([batch.documents for batch in batches])  # type: ignore[misc]
    slices = {name: torch.cat([batch.slices[name] for batch in batches]) for name in one.slices}
    return Batch(
        torch.cat([batch.inputs for batch in batches]),
        torch.cat([batch.targets for batch in batches]),
        slices,
        documents,
    )
