"""Near duplicates across splits: MinHash and locality-sensitive hashing find candidates, an exact
comparison decides.

A document is the set of its shingles: all runs of 24 bytes, without white space and with ASCII
letters in lower case. Two documents are near duplicates if the Jaccard similarity of their sets is
at least 0.8. A set is sketched by one permutation hashing (Li, Owen and Zhang, arXiv:1208.1259)
whose empty bins are filled from the next (Shrivastava and Li, arXiv:1406.4784). Documents that
agree in all 5 values of one of 25 bands are candidates: this finds 99.995 % of the pairs with a
similarity of 0.8, and more of those above. Candidates are then compared exactly.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from jaxtyping import Int64, UInt64

from hybridlab.tasks.counter_rng import GAMMA, mix64

THRESHOLD = 0.8
SHINGLE = 24  # bytes
BANDS, ROWS = 25, 5
_BITS = 7  # bits of a hash that select its bin: 128 bins, of which the bands use 125
_CHUNK = 1 << 22  # bytes hashed at once
_MOST_CANDIDATES = 16  # compared with a document in a band; where more agree, any 16 will do

Hashes = UInt64[np.ndarray, " _"]


def band_keys(text: bytes) -> UInt64[np.ndarray, " bands"]:
    """Return the sketch of a document; two documents whose keys agree in a band are candidates."""
    empty = np.uint64(2**64 - 1)
    least = np.full(1 << _BITS, empty)
    for hashes in _hashes(text):
        np.minimum.at(least, hashes >> np.uint64(64 - _BITS), hashes)
    filled = np.flatnonzero(least != empty)
    bins = np.arange(BANDS * ROWS)
    source = filled[np.searchsorted(filled, bins) % len(filled)]
    distance = ((source - bins) % len(least)).astype(np.uint64)
    values = mix64(least[source] + distance * GAMMA).reshape(BANDS, ROWS)
    return mix64((values * _powers(ROWS)).sum(axis=1))


def near_duplicates(
    text: Callable[[int], bytes],
    keys: UInt64[np.ndarray, "documents bands"],
    documents: Int64[np.ndarray, " n"],
    others: Int64[np.ndarray, " m"],
) -> Int64[np.ndarray, " found"]:
    """Return the `documents` that are near duplicates of one of the `others`; both are indices into
    `text` and `keys`."""

    @lru_cache(maxsize=64)
    def shingles_of_other(index: int) -> Hashes:
        return _shingles(text(index))

    found: list[int] = []
    own, shingles = -1, np.empty(0, np.uint64)
    for index, other in _candidates(keys, documents, others).tolist():
        if found and found[-1] == index:
            continue
        if index != own:
            own, shingles = index, _shingles(text(index))
        if jaccard(shingles, shingles_of_other(other)) >= THRESHOLD:
            found.append(index)
    return np.array(found, dtype=np.int64)


def jaccard(one: Hashes, other: Hashes) -> float:
    """Return the size of the intersection of two sets divided by that of their union."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def _candidates(keys: np.ndarray, documents: np.ndarray, others: np.ndarray) -> Int64[np.ndarray, "pairs 2"]:
    """Return the pairs that agree in a band, sorted."""
    pairs = []
    for band in range(BANDS):
        order = np.argsort(keys[others, band], kind="stable")
        known = keys[others, band][order]
        first, end = (np.searchsorted(known, keys[documents, band], side) for side in ("left", "right"))
        counts = np.minimum(end - first, _MOST_CANDIDATES)
        within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        chosen = others[order[np.repeat(first, counts) + within]]
        pairs.append(np.stack([np.repeat(documents, counts), chosen], axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def _shingles(text: bytes) -> Hashes:
    return np.unique(np.concatenate(list(_hashes(text))))


def _hashes(text: bytes) -> Iterator[Hashes]:
    """Yield the hashes of all shingles, in chunks; a document shorter than a shingle counts as
    one."""
    codes = np.frombuffer(text, dtype=np.uint8)
    values = _VALUES[codes[_KEPT[codes]]]
    if len(values) < SHINGLE:
        yield mix64((values * _powers(len(values))).sum(keepdims=True))
        return
    for start in range(0, len(values) - SHINGLE + 1, _CHUNK):
        yield mix64(_rolled(values[start : start + _CHUNK + SHINGLE - 1]))


def _rolled(values: Hashes) -> Hashes:
    """Return the polynomial hash of every run of 24 values: 8 by doubling, then 8 and 16
    together."""
    eight = values
    for size in (1, 2, 4):
        eight = eight[:-size] * _power(size) + eight[size:]
    sixteen = eight[:-8] * _power(8) + eight[8:]
    return sixteen[:-8] * _power(8) + eight[16:]


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(int(GAMMA), exponent, 1 << 64))


def _powers(num: int) -> Hashes:
    return np.array([_power(exponent) for exponent in range(num)], dtype=np.uint64)


_KEPT = np.arange(256) > 32
_VALUES = mix64(np.array([ord(chr(code).lower()) if code < 128 else code for code in range(256)], np.uint64) + GAMMA)
