"""Earlier occurrences of a symbol in its sequence, from which recall, induction and their distances
follow."""

import numpy as np
from jaxtyping import Shaped


def previous_occurrence(symbols: Shaped[np.ndarray, "*n t"]) -> Shaped[np.ndarray, "*n t"]:
    """Return the index of the last earlier occurrence of each symbol in its sequence, -1 for a new
    symbol.

    >>> previous_occurrence(np.array([5, 6, 5, 5]))
    array([-1, -1,  0,  2])
    """
    order, follows = _grouped(symbols)
    before = np.where(follows, np.roll(order, 1, axis=-1), -1)
    return _put_back(order, before)


def first_occurrence(symbols: Shaped[np.ndarray, "*n t"]) -> Shaped[np.ndarray, "*n t"]:
    """Return the index of the first occurrence of each symbol in its sequence; a new symbol's is
    its own.

    >>> first_occurrence(np.array([5, 6, 5, 5]))
    array([0, 1, 0, 0])
    """
    order, follows = _grouped(symbols)
    start = np.maximum.accumulate(np.where(follows, 0, np.arange(symbols.shape[-1])), axis=-1)
    return _put_back(order, np.take_along_axis(order, start, axis=-1))


def _grouped(symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices sorted by symbol, then by index, and whether each has the same symbol as
    the one before it."""
    order = np.argsort(symbols, axis=-1, kind="stable")
    ordered = np.take_along_axis(symbols, order, axis=-1)
    follows = np.zeros(symbols.shape, dtype=bool)
    follows[..., 1:] = ordered[..., 1:] == ordered[..., :-1]
    return order, follows


def _put_back(order: np.ndarray, values: np.ndarray) -> np.ndarray:
    result = np.empty_like(order)
    np.put_along_axis(result, order, values, axis=-1)
    return result
