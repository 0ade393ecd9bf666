"""Byte n-gram models: the bits per byte when only the last one, two or three bytes are known."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt8

VERSION = 1  # raised whenever the same texts get other numbers, which are kept on disk
CONTEXTS = (1, 2, 3)
BEGIN = 256  # precedes every document
VOCABULARY = 257  # the bytes and BEGIN
_LONGEST = max(CONTEXTS)
_MOST_BYTES = 1 << 27  # that a model is fitted to
_CHUNK = 1 << 24  # bytes counted at once

Text = UInt8[np.ndarray, " bytes"]


def baselines(training: Iterable[Text], scored: Iterable[Text]) -> dict[int, float]:
    """Return the bits per byte of n-gram models with 1, 2 and 3 bytes of context.

    Counts and discounts are estimated on the first 128 MiB of `training`, which takes a minute.
    Every byte of `scored` is scored, including the first of a document, whose context is BEGIN. The
    result is total bits over total bytes, so long documents weigh more.
    """
    grams, counts = _count(_first(training, _MOST_BYTES))
    scored_grams, times = _count(scored)
    models = {context: KneserNey(grams, counts, context) for context in CONTEXTS}
    bits = {context: -np.log2(model.probability(scored_grams)) for context, model in models.items()}
    return {context: float(each @ times / times.sum()) for context, each in bits.items()}


class KneserNey:
    """Interpolated Kneser-Ney smoothing (Kneser and Ney 1995; interpolated by Chen and Goodman
    1999).

    p(x | c) = (max(n(c x) - D, 0) + D · distinct(c) · p(x | c without its oldest byte)) / n(c),
    where n counts occurrences at the longest context, and distinct bytes to the left at shorter
    ones; below the shortest, p is 1/256. Each level has D = n1 / (n1 + 2 n2). On the validation
    split of the embedded corpus it reaches 2.021 bits per byte with 3 bytes of context, the
    modified form 2.021 and Witten-Bell 2.025.

    An n-gram is a number in base 257, oldest symbol first and the predicted byte last; its context
    may contain BEGIN.
    """

    def __init__(self, grams: Int64[np.ndarray, " n"], counts: Int64[np.ndarray, " n"], context: int):
        grams, counts = _sum_by_gram(grams % VOCABULARY ** (context + 1), counts)
        self.levels = [_level(grams, counts)]
        for shorter in range(context, 0, -1):
            grams, counts = _sum_by_gram(grams % VOCABULARY**shorter, np.ones_like(grams))
            self.levels.append(_level(grams, counts))

    def probability(self, grams: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Return the probability of the last symbol of each n-gram, given those before it."""
        probability = np.full(len(grams), 1 / BEGIN)
        for size, level in enumerate(reversed(self.levels), start=1):
            wanted = grams % VOCABULARY**size
            kept = _look_up(level.grams, level.kept, wanted, missing=0.0)
            passed_on = _look_up(level.contexts, level.passed_on, wanted // VOCABULARY, missing=1.0)
            probability = kept + passed_on * probability
        return probability


class _Level(NamedTuple):
    grams: Int64[np.ndarray, " n"]  # sorted
    kept: Float64[np.ndarray, " n"]  # discounted relative frequency of each
    contexts: Int64[np.ndarray, " c"]  # sorted
    passed_on: Float64[np.ndarray, " c"]  # probability mass of each that goes to the shorter context


def _level(grams: np.ndarray, counts: np.ndarray) -> _Level:
    num_once, num_twice = (counts == 1).sum(), (counts == 2).sum()
    # The discount cannot be estimated where no n-gram occurs once, or none twice.
    discount = num_once / (num_once + 2 * num_twice) if num_once and num_twice else 0.5
    contexts, of, distinct = np.unique(grams // VOCABULARY, return_inverse=True, return_counts=True)
    total = np.bincount(of, weights=counts)
    return _Level(grams, (counts - discount) / total[of], contexts, discount * distinct / total)


def _first(texts: Iterable[Text], most: int) -> Iterable[Text]:
    for text in texts:
        yield text[:most]
        most -= len(text)
        if most <= 0:
            return


def _count(texts: Iterable[Text]) -> tuple[np.ndarray, np.ndarray]:
    """Count the distinct n-grams chunk by chunk: a large corpus has far fewer of them than
    bytes."""
    grams, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    codes: list[np.ndarray] = []
    for text in texts:
        codes.append(_codes(text))
        if sum(map(len, codes)) >= _CHUNK:
            grams, counts = _merge(grams, counts, codes)
            codes = []
    return _merge(grams, counts, codes)


def _merge(grams: np.ndarray, counts: np.ndarray, codes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    more, times = np.unique(np.concatenate([*codes, grams[:0]]), return_counts=True)
    grams, counts = _sum_by_gram(np.concatenate([grams, more]), np.concatenate([counts, times]))
    return grams, counts.astype(np.int64)


def _codes(text: np.ndarray) -> np.ndarray:
    symbols = np.concatenate([np.full(_LONGEST, BEGIN), text])
    code = np.zeros(len(text), dtype=np.int64)
    for first in range(_LONGEST + 1):
        code = code * VOCABULARY + symbols[first : first + len(text)]
    return code


def _sum_by_gram(grams: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distinct, of = np.unique(grams, return_inverse=True)
    return distinct, np.bincount(of, weights=counts)


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray, missing: float) -> np.ndarray:
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], missing)
