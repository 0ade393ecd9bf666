"""Means with 95 % intervals over seeds, and tests corrected for multiplicity; without scipy."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from hybridlab.records.measurement import OVER_SEEDS, Measurement

ROUNDING = 1e-9  # smaller differences may come from rounding


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, and the sampling unit of the interval."""

    value: float
    low: float | None = None
    high: float | None = None
    interval: str = ""  # as in Measurement
    n: int | None = None  # documents or seeds
    tokens: int | None = None


def estimate(measurements: Iterable[Measurement]) -> Estimate:
    """Return the mean of several runs over seeds, or a single run's own number and interval."""
    found = list(measurements)
    if len(found) == 1:
        one = found[0]
        return Estimate(one.value, one.low, one.high, one.interval, one.n, one.tokens)
    return over_seeds([each.value for each in found], found[0].tokens)


def over_seeds(values: list[float], tokens: int | None = None) -> Estimate:
    """Return the mean of one value per seed with Student's 95 % interval, which one seed lacks."""
    mean, num_seeds = fmean(values), len(values)
    if num_seeds < 2 or not all(map(math.isfinite, values)):
        return Estimate(mean, n=num_seeds, tokens=tokens)
    half = t_quantile(num_seeds - 1) * stdev(values) / math.sqrt(num_seeds)
    return Estimate(mean, mean - half, mean + half, OVER_SEEDS, num_seeds, tokens)


def ratio_over_seeds(above: list[float], below: list[float]) -> Estimate | None:
    """Return the ratio of two means, a pair per seed, with Fieller's (1954) 95 % interval.

    Fieller's interval allows for the ratio's skew. `None` if the seeds do not show that the mean of
    `below` differs from 0, as the ratio is then unbounded. A single seed has no interval.
    """
    num_seeds, top, bottom = len(above), fmean(above), fmean(below)
    if num_seeds < 2:
        return Estimate(top / bottom, n=num_seeds) if bottom else None
    scale = t_quantile(num_seeds - 1) ** 2 / num_seeds
    a = bottom**2 - scale * _covariance(below, below)
    b = top * bottom - scale * _covariance(above, below)
    c = top**2 - scale * _covariance(above, above)
    if not a > 0:
        return None
    half = math.sqrt(max(0.0, b**2 - a * c)) / a
    return Estimate(top / bottom, b / a - half, b / a + half, OVER_SEEDS, num_seeds)


def p_above(values: Sequence[float], bound: float = 0.0) -> float:
    """Return the one-sided p-value of Student's t test for a mean over seeds above `bound`.

    Equal values give p = 0 or 1; fewer than two values, or one that is not finite, give p = 1.
    """
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return 1.0
    excess, spread = fmean(values) - bound, stdev(values)
    if spread < ROUNDING:
        return 0.0 if excess > ROUNDING else 1.0
    return t_tail(excess / spread * math.sqrt(len(values)), len(values) - 1)


def p_differs(values: Sequence[float]) -> float:
    """Return the two-sided p-value of Student's t test for a mean over seeds other than 0."""
    return min(1.0, 2 * min(p_above(values), p_above([-value for value in values])))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values with Holm's (1979) correction, which bounds the family-wise error rate."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def t_tail(t: float, degrees: int) -> float:
    """Return P(T > t) of Student's t, for whole degrees of freedom."""
    beyond = (1 - _central_probability(math.atan(abs(t) / math.sqrt(degrees)), degrees)) / 2
    return beyond if t > 0 else 1 - beyond


def t_quantile(degrees: int, confidence: float = 0.95) -> float:
    """Return the t with P(|T| < t) = `confidence`, for whole degrees of freedom.

    Found by bisection in the angle atan(t / sqrt(degrees)).
    """
    assert degrees >= 1
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _central_probability(middle, degrees) < confidence else (low, middle)
    return math.tan((low + high) / 2) * math.sqrt(degrees)


def _central_probability(angle: float, degrees: int) -> float:
    """Return P(|T| < tan(angle) sqrt(degrees)), by Abramowitz & Stegun 26.7.3 and 26.7.4."""
    odd = degrees % 2
    term = total = math.cos(angle) if odd else 1.0
    for k in range(2 + odd, degrees - 1, 2):
        term *= math.cos(angle) ** 2 * (k - 1) / k
        total += term
    if not odd:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + (math.sin(angle) * total if degrees > 1 else 0.0))


def _covariance(one: Sequence[float], other: Sequence[float]) -> float:
    mean, mean_other = fmean(one), fmean(other)
    return sum((a - mean) * (b - mean_other) for a, b in zip(one, other, strict=True)) / (len(one) - 1)
