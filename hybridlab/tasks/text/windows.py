"""The rows in which the documents of a split are scored, such that each token is scored at most once."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64

from hybridlab.tasks.text.split import Rows


def windows(lengths: Int64[np.ndarray, " documents"], window: int, stride: int, batch: int) -> Iterator[Rows]:
    """Lay windows of at most `window` targets every `stride` over the first `lengths` tokens of each document.

    The first window of a document is scored whole; a later one only where the one before it had ended. For
    stride <= window this scores each token in the window that gives it the longest context.
    """
    counts = 1 - (window - np.maximum(lengths, window)) // stride
    document = np.repeat(np.arange(len(lengths)), counts)
    rank = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = rank * stride
    end = np.minimum(first + window, lengths[document])
    scored = np.where(rank == 0, 0, first - stride + window)
    yield from _batched(Rows(document, first, scored, end, lengths[document]), batch)


def starts(lengths: Int64[np.ndarray, " documents"], batch: int) -> Iterator[Rows]:
    """Lay one row on each document, its first `lengths` tokens; rows of like lengths together, so that little is padding."""
    document = np.argsort(lengths, kind="stable")
    first, end = np.zeros_like(document), lengths[document]
    yield from _batched(Rows(document, first, first, end, end), batch)


def _batched(rows: Rows, batch: int) -> Iterator[Rows]:
    for start in range(0, len(rows.document), batch):
        yield Rows(*(each[start : start + batch] for each in rows))
