"""Random numbers for many examples at once, each example with a stream of its own."""

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from hybridlab.tasks.occurrences import previous_occurrence

GAMMA = np.uint64(0x9E3779B97F4A7C15)  # the increment of SplitMix64


class CounterRng:
    """A stream of random numbers for each of n examples, a pure function of that example's key.

    Number j of the stream with key k is SplitMix64's output at the state k + j·gamma (Steele, Lea
    and Flood 2014). So thousands of examples are drawn at once, and any one of them can be drawn
    again without the others.
    """

    def __init__(self, keys: UInt64[np.ndarray, " n"]) -> None:
        self._keys = keys
        self._used = 0

    def __len__(self) -> int:
        return len(self._keys)

    def bits(self, m: int) -> UInt64[np.ndarray, "n m"]:
        """Return the next `m` numbers of every stream, 64 random bits each."""
        counter = np.arange(self._used + 1, self._used + m + 1, dtype=np.uint64)
        self._used += m
        return mix64(self._keys[:, None] + counter * GAMMA)

    def uniform(self, m: int) -> Float64[np.ndarray, "n m"]:
        """Return `m` numbers of every stream, uniform in [0, 1)."""
        return (self.bits(m) >> np.uint64(11)) * 2.0**-53

    def integers(self, high: Any, m: int) -> Int64[np.ndarray, "n m"]:
        """Return `m` integers of every stream, uniform in [0, high) up to high/2^32; `high` may be
        an array [n, m]."""
        scaled = (self.bits(m) >> np.uint64(32)) * np.asarray(high).astype(np.uint64)
        return (scaled >> np.uint64(32)).astype(np.int64)

    def distinct(self, high: int, m: int) -> Int64[np.ndarray, "n m"]:
        """Return `m` different integers below `high` for each example, every ordered choice equally
        likely.

        Where `high` is much larger than `m`, repeats are drawn again until there are none. The rule
        treats all integers alike, and renaming them turns any ordered choice into any other, so all
        choices are equally likely.
        """
        if high <= 4 * m:
            return np.argsort(self.uniform(high), axis=1)[:, :m]
        chosen = self.integers(high, m)
        # Redraws have streams of their own, so that later draws don't depend on how often other
        # examples were redrawn.
        keys = self.bits(1)[:, 0]
        pending = np.flatnonzero(_has_repeats(chosen))
        while len(pending):
            keys = mix64(keys + GAMMA)
            redrawn = chosen[pending]
            fresh = CounterRng(keys[pending]).integers(high, m)
            redrawn = np.where(previous_occurrence(redrawn) >= 0, fresh, redrawn)
            chosen[pending] = redrawn
            pending = pending[_has_repeats(redrawn)]
        return chosen

    def weighted(self, weights: Float64[np.ndarray, " high"], m: int) -> Int64[np.ndarray, "n m"]:
        """Return `m` different indices into `weights`, sampled without replacement in proportion to
        the weights.

        Sorting exponential variables divided by their weights yields this order (Efraimidis and
        Spirakis 2006).
        """
        times = -np.log1p(-self.uniform(len(weights))) / weights
        return np.argsort(times, axis=1)[:, :m]


def mix64(numbers: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """Return SplitMix64's finaliser of each number: a permutation of the 64-bit numbers that looks
    random."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def keys_of(*parts: Any) -> UInt64[np.ndarray, " n"]:
    """Return a key for each tuple of whole numbers; each part is a number or an array [n], and none
    is negative."""
    key = np.zeros(1, dtype=np.uint64)
    for part in parts:
        key = mix64(key + GAMMA + np.asarray(part, dtype=np.uint64))
    return key


def _has_repeats(numbers: Int64[np.ndarray, "n m"]) -> np.ndarray:
    ordered = np.sort(numbers, axis=1)
    return (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
