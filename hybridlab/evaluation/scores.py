"""Sums of negative log-likelihood by document and position, and the intervals they give."""

from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
FIRST_EDGE = 64  # positions below it share one bucket; above it, buckets are powers of two


@dataclass
class Scores:
    """Summed NLL (nats) and numbers of tokens, each [documents, position buckets]; documents are the sampling unit."""

    nll: np.ndarray
    tokens: np.ndarray

    @classmethod
    def empty(cls, documents: int, longest: int) -> "Scores":
        """Return zero sums for `documents` of at most `longest` tokens."""
        shape = (documents, num_buckets(longest))
        return cls(np.zeros(shape), np.zeros(shape))

    def add(self, nll: np.ndarray, document: np.ndarray, position: np.ndarray) -> None:
        """Add tokens: their NLL, the index of their document and their position in it, all [n]."""
        bucket = bucket_of(position)
        np.add.at(self.nll, (document, bucket), nll)
        np.add.at(self.tokens, (document, bucket), 1)


@dataclass(frozen=True)
class Interval:
    """A mean in nats per token with its 95 % interval, and what it rests on."""

    value: float
    low: float | None
    high: float | None
    documents: int
    tokens: int


def mean(scores: Scores, bucket: int | None = None, minus: Scores | None = None) -> Interval | None:
    """Return the NLL per token, of one bucket or of all, or its difference from the same tokens' NLL in `minus`.

    The interval is a percentile bootstrap over documents, paired where there is a difference; one document gives none.
    `None` where no token was scored.
    """
    chosen = slice(None) if bucket is None else slice(bucket, bucket + 1)
    total = scores.nll[:, chosen].sum(axis=1)
    if minus is not None:
        total = total - minus.nll[:, chosen].sum(axis=1)
    tokens = scores.tokens[:, chosen].sum(axis=1)
    present = tokens > 0
    total, tokens = total[present], tokens[present]
    if len(tokens) == 0:
        return None
    low = high = None
    if len(tokens) > 1:
        draws = np.random.default_rng(0).multinomial(len(tokens), np.full(len(tokens), 1 / len(tokens)), RESAMPLES)
        low, high = map(float, np.quantile((draws @ total) / (draws @ tokens), (0.025, 0.975)))
    return Interval(float(total.sum() / tokens.sum()), low, high, len(tokens), int(tokens.sum()))


def bucket_of(position: np.ndarray) -> np.ndarray:
    """Return the bucket of each position: 0 below 64, 1 for 64-127, 2 for 128-255, ...

    >>> bucket_of(np.array([0, 63, 64, 127, 128, 4095])).tolist()
    [0, 0, 1, 1, 2, 6]
    """
    return np.frexp(np.maximum(position // FIRST_EDGE, 0).astype(np.float64))[1]


def num_buckets(longest: int) -> int:
    """Return how many buckets the positions below `longest` fall into."""
    return int(bucket_of(np.array([max(longest - 1, 0)]))[0]) + 1


def bucket_name(bucket: int) -> str:
    """Return the positions of a bucket in words.

    >>> bucket_name(0), bucket_name(2)
    ('0-63', '128-255')
    """
    last = FIRST_EDGE * 2**bucket - 1
    return f"{0 if bucket == 0 else (last + 1) // 2}-{last}"
