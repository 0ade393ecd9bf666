"""Where a symbol was seen before: the fact under recall, induction and their distances."""

import numpy as np
from jaxtyping import Int64


def previous_occurrence(symbols: Int64[np.ndarray, "*rows t"]) -> Int64[np.ndarray, "*rows t"]:
    """Return the place of the last earlier occurrence of each symbol in its row, -1 where there is none.

    >>> previous_occurrence(np.array([5, 6, 5, 5]))
    array([-1, -1,  0,  2])
    """
    order, follows = _grouped(symbols)
    before = np.where(follows, np.roll(order, 1, axis=-1), -1)
    return _put_back(order, before)


def first_occurrence(symbols: Int64[np.ndarray, "*rows t"]) -> Int64[np.ndarray, "*rows t"]:
    """Return the place of the first occurrence of each symbol in its row: its own, where it is new.

    >>> first_occurrence(np.array([5, 6, 5, 5]))
    array([0, 1, 0, 0])
    """
    order, follows = _grouped(symbols)
    start = np.maximum.accumulate(np.where(follows, 0, np.arange(symbols.shape[-1])), axis=-1)
    return _put_back(order, np.take_along_axis(order, start, axis=-1))


def _grouped(symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return places sorted by symbol, then by place, and whether each holds the same symbol as the one before it."""
    order = np.argsort(symbols, axis=-1, kind="stable")
    ordered = np.take_along_axis(symbols, order, axis=-1)
    follows = np.zeros(symbols.shape, dtype=bool)
    follows[..., 1:] = ordered[..., 1:] == ordered[..., :-1]
    return order, follows


def _put_back(order: np.ndarray, values: np.ndarray) -> np.ndarray:
    result = np.empty_like(order)
    np.put_along_axis(result, order, values, axis=-1)
    return result
