"""The buckets that the facts about scored targets fall into."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int

from hybridlab.tasks.slices import POWERS_OF_TWO, Slice


class Buckets:
    """The buckets of a slice that hold any of some values, the lowest first. Values below 0 are in
    none.
    """

    def __init__(self, slice: Slice, values: Iterable[Int[np.ndarray, " _"]]) -> None:
        self._slice = slice
        distinct = {key for some in values for key in np.unique(self._keys_of(some)).tolist()}
        self._keys = np.array(sorted(key for key in distinct if key >= 0), np.int64)
        self.names = tuple(self._name(key) for key in self._keys.tolist())

    def __len__(self) -> int:
        return len(self.names)

    def of(self, values: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Return the index of each value's bucket; the number of buckets for a value that is in
        none.
        """
        keys = self._keys_of(values)
        return np.where(keys < 0, len(self), np.searchsorted(self._keys, keys))

    def _keys_of(self, values: np.ndarray) -> np.ndarray:
        """Return what is equal for two values if they share a bucket."""
        if self._slice.buckets != POWERS_OF_TWO:
            return values
        return np.where(values < 0, -1, np.frexp((values // self._slice.first).astype(np.float64))[1])

    def _name(self, key: int) -> str:
        if self._slice.buckets == POWERS_OF_TWO:
            low, high = (0 if key == 0 else self._slice.first << (key - 1)), (self._slice.first << key) - 1
            return str(low) if low == high else f"{low}-{high}"
        return self._slice.labels[key] if key < len(self._slice.labels) else str(key)


def in_order(slice: Slice, names: Iterable[str]) -> tuple[str, ...]:
    """Return names of buckets of a slice in their order: by its labels, else by their first
    number."""
    labels = slice.labels
    return tuple(sorted(names, key=lambda name: labels.index(name) if name in labels else int(name.partition("-")[0])))
