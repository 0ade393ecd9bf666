"""Overlapping windows over the documents of a split, such that each byte is scored once."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64

from hybridlab.tasks.split import Rows


def windows(lengths: Int64[np.ndarray, " documents"], window: int, stride: int, batch: int) -> Iterator[Rows]:
    """Lay windows of at most `window` targets every `stride` over the first `lengths` bytes of each document.

    The first window of a document is scored whole; a later one only where the one before it had ended. For
    stride <= window this scores each byte in the window that gives it the longest context.
    """
    counts = 1 - (window - np.maximum(lengths, window)) // stride
    document = np.repeat(np.arange(len(lengths)), counts)
    rank = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = rank * stride
    end = np.minimum(first + window, lengths[document])
    scored = np.where(rank == 0, 0, first - stride + window)
    for start in range(0, len(document), batch):
        taken = slice(start, start + batch)
        yield Rows(document[taken], first[taken], scored[taken], end[taken])
