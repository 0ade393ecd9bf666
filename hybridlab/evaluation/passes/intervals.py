"""Means over sampling units, with their bootstrap intervals."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int16

RESAMPLES = 1000
AT_A_TIME = 50  # resamples that are multiplied out together


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval, and the number of units that it rests on."""

    value: float
    low: float | None
    high: float | None
    units: int

    def changed(self, change: Callable[[float], float]) -> "Interval":
        """Return the interval of a monotonically rising function of the mean."""
        low, high = (None if end is None else change(end) for end in (self.low, self.high))
        return Interval(change(self.value), low, high, self.units)


def means(totals: Float[np.ndarray, "u c"], weights: Float[np.ndarray, "u c"]) -> list[Interval | None]:
    """Return the mean of each column: the sum of its totals over that of its weights, both by unit.

    The interval is a percentile bootstrap over units; each resample draws from all units, so that
    columns and differences are paired. A column with one unit, or with a total that is no finite
    number, has no interval; one without any weight is `None`.
    """
    present = (weights > 0).sum(0)
    low, high = np.full((2, weights.shape[1]), np.nan)
    if (several := (present > 1) & np.isfinite(totals).all(0)).any():
        drawn, weighed = _resampled(totals[:, several]), _resampled(weights[:, several])
        ratios = np.divide(drawn, weighed, out=np.full_like(drawn, np.nan), where=weighed > 0)
        low[several], high[several] = np.nanquantile(ratios, (0.025, 0.975), axis=0)
    found: list[Interval | None] = []
    for column, units in enumerate(present.tolist()):
        if units == 0:
            found.append(None)
            continue
        ends = (float(low[column]), float(high[column])) if several[column] else (None, None)
        found.append(Interval(float(totals[:, column].sum() / weights[:, column].sum()), *ends, units))
    return found


def _resampled(columns: np.ndarray) -> np.ndarray:
    """Return the sum of each column [u, c] over each resample of the units, [resamples, c]."""
    draws = _draws(len(columns))
    chunks = (draws[first : first + AT_A_TIME] for first in range(0, RESAMPLES, AT_A_TIME))
    return np.concatenate([chunk.astype(np.float64) @ columns for chunk in chunks])


@lru_cache(maxsize=1)
def _draws(units: int) -> Int16[np.ndarray, "resamples units"]:
    """Return how often each unit is drawn in each resample, the same for all measures of a
    split."""
    generator = np.random.default_rng(0)
    draws = np.empty((RESAMPLES, units), np.int16)
    for row in draws:
        row[:] = np.bincount(generator.integers(units, size=units), minlength=units)
    return draws
