"""The sequences in which the documents of a split are evaluated, with each token scored at most
once."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64

from hybridlab.tasks.text.split import Spans


def windows(lengths: Int64[np.ndarray, " documents"], window: int, stride: int, batch: int) -> Iterator[Spans]:
    """Yield windows of at most `window` targets every `stride` over the first `lengths` tokens of
    each document.

    The first window of a document is scored whole, a later one from the end of the window before
    it. For stride <= window each token is scored once, in the window that gives it the longest
    context.
    """
    counts = 1 - (window - np.maximum(lengths, window)) // stride
    document = np.repeat(np.arange(len(lengths)), counts)
    rank = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = rank * stride
    end = np.minimum(first + window, lengths[document])
    scored = np.where(rank == 0, 0, first - stride + window)
    yield from _batches(Spans(document, first, scored, end, lengths[document]), batch)


def starts(lengths: Int64[np.ndarray, " documents"], batch: int) -> Iterator[Spans]:
    """Yield one span for each document, its first `lengths` tokens, sorted by length to keep
    padding low."""
    document = np.argsort(lengths, kind="stable")
    first, end = np.zeros_like(document), lengths[document]
    yield from _batches(Spans(document, first, first, end, end), batch)


def _batches(spans: Spans, batch: int) -> Iterator[Spans]:
    for start in range(0, len(spans.document), batch):
        yield Spans(*(each[start : start + batch] for each in spans))
