"""Random numbers for many examples at once, each example with a stream of its own."""

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from hybridlab.tasks.text.previous import previous_occurrence

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


class Draws:
    """A stream of random numbers for each of n examples, a pure function of that example's key.

    Number j of the stream with key k is SplitMix64's output at the state k + j·gamma (Steele, Lea and Flood 2014). So
    examples are drawn by the thousand, and any one of them is drawn again without the others.
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
        return mixed(self._keys[:, None] + counter * _GAMMA)

    def uniform(self, m: int) -> Float64[np.ndarray, "n m"]:
        """Return numbers from 0 up to, but not, 1."""
        return (self.bits(m) >> np.uint64(11)) * 2.0**-53

    def integers(self, high: Any, m: int) -> Int64[np.ndarray, "n m"]:
        """Return whole numbers from 0 to `high` - 1, each as likely (to high/2^32); `high` is a number or an array [n, m]."""
        scaled = (self.bits(m) >> np.uint64(32)) * np.asarray(high).astype(np.uint64)
        return (scaled >> np.uint64(32)).astype(np.int64)

    def distinct(self, high: int, m: int) -> Int64[np.ndarray, "n m"]:
        """Return `m` different whole numbers below `high` for each example, every ordered choice equally likely.

        Where few are wanted of many, repeats are drawn anew until there are none. The result cannot prefer any number: the
        rule treats all of them alike, so all ordered choices, which renaming turns into one another, are as likely.
        """
        if high <= 4 * m:
            return np.argsort(self.uniform(high), axis=1)[:, :m]
        chosen = self.integers(high, m)
        # A stream apart, so that what is drawn next does not depend on how often the other examples had to draw anew.
        keys = self.bits(1)[:, 0]
        pending = np.flatnonzero(_has_repeats(chosen))
        while len(pending):
            keys = mixed(keys + _GAMMA)
            rows = chosen[pending]
            rows = np.where(previous_occurrence(rows) >= 0, Draws(keys[pending]).integers(high, m), rows)
            chosen[pending] = rows
            pending = pending[_has_repeats(rows)]
        return chosen

    def ranked(self, weights: Float64[np.ndarray, " high"], m: int) -> Int64[np.ndarray, "n m"]:
        """Return `m` different numbers, drawn one after another with chances in proportion to the weights left.

        Numbers ordered by an exponential variable over their weight come in just that order (Efraimidis and Spirakis 2006).
        """
        times = -np.log1p(-self.uniform(len(weights))) / weights
        return np.argsort(times, axis=1)[:, :m]


def mixed(numbers: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """Return SplitMix64's finaliser of each number: a permutation of the 64-bit numbers that looks random."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def keyed(*parts: int | UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Return a key for each n-tuple of whole numbers of at least 0, the same whatever else is asked for."""
    key = np.zeros(1, dtype=np.uint64)
    for part in parts:
        key = mixed(key + _GAMMA + np.asarray(part, dtype=np.uint64))
    return key


def _has_repeats(rows: np.ndarray) -> np.ndarray:
    ordered = np.sort(rows, axis=1)
    return (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
