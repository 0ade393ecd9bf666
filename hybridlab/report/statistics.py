"""Means with 95 % intervals over seeds, without scipy."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev

from hybridlab.records.measurement import OVER_SEEDS, Measurement


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, and what the interval is over."""

    value: float
    low: float | None = None
    high: float | None = None
    interval: str = ""  # as in Measurement
    n: int | None = None  # documents or seeds
    tokens: int | None = None


def estimate(rows: Iterable[Measurement]) -> Estimate:
    """Return one number of several runs: their mean over seeds, or for a single run what it measured."""
    rows = list(rows)
    if len(rows) == 1:
        row = rows[0]
        return Estimate(row.value, row.low, row.high, row.interval, row.n, row.tokens)
    return over_seeds([row.value for row in rows], rows[0].tokens)


def over_seeds(values: list[float], tokens: int | None = None) -> Estimate:
    """Return the mean of one value per seed with Student's 95 % interval; one seed gives no interval."""
    mean, num_seeds = fmean(values), len(values)
    if num_seeds < 2 or not all(map(math.isfinite, values)):
        return Estimate(mean, n=num_seeds, tokens=tokens)
    half = t_quantile(num_seeds - 1) * stdev(values) / math.sqrt(num_seeds)
    return Estimate(mean, mean - half, mean + half, OVER_SEEDS, num_seeds, tokens)


def t_quantile(degrees: int, confidence: float = 0.95) -> float:
    """Return the t that |T| stays below with probability `confidence`, for whole degrees of freedom.

    Solves P(|T| < t) = confidence by halving in the angle atan(t / sqrt(degrees)).
    """
    assert degrees >= 1
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _central_probability(middle, degrees) < confidence else (low, middle)
    return math.tan((low + high) / 2) * math.sqrt(degrees)


def _central_probability(angle: float, degrees: int) -> float:
    """Return P(|T| < t), t = tan(angle) sqrt(degrees): the finite sums of Abramowitz & Stegun 26.7.3 and 26.7.4."""
    odd = degrees % 2
    term = total = math.cos(angle) if odd else 1.0
    for k in range(2 + odd, degrees - 1, 2):
        term *= math.cos(angle) ** 2 * (k - 1) / k
        total += term
    if not odd:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + (math.sin(angle) * total if degrees > 1 else 0.0))
