"""Means with 95 % intervals over seeds, tests of differences, and their correction where there are many; without scipy."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from hybridlab.records.measurement import OVER_SEEDS, Measurement

ROUNDING = 1e-9  # what lies below may come from the arithmetic


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


def ratio_over_seeds(above: list[float], below: list[float]) -> Estimate | None:
    """Return the mean of `above` over the mean of `below`, a pair per seed, with Fieller's (1954) 95 % interval.

    Fieller's interval allows for the ratio's skew. `None` where the seeds cannot tell the mean of `below` from 0: the
    ratio may then be anything. One seed gives no interval.
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
    """Return the one-sided p-value of Student's t test that the mean of one value per seed lies above `bound`.

    Values that are all alike decide without doubt; fewer than two, or one that is not finite, decide nothing (p = 1).
    """
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return 1.0
    excess, spread = fmean(values) - bound, stdev(values)
    if spread < ROUNDING:
        return 0.0 if excess > ROUNDING else 1.0
    return t_tail(excess / spread * math.sqrt(len(values)), len(values) - 1)


def p_differs(values: Sequence[float]) -> float:
    """Return the two-sided p-value of Student's t test that the mean of one value per seed is not 0."""
    return min(1.0, 2 * min(p_above(values), p_above([-value for value in values])))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of a family of tests as Holm (1979) corrects them: below 0.05, each is shown at 5 % for all."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def t_tail(t: float, degrees: int) -> float:
    """Return P(T > t) of Student's t, for whole degrees of freedom."""
    beyond = (1 - _central_probability(math.atan(abs(t) / math.sqrt(degrees)), degrees)) / 2
    return beyond if t > 0 else 1 - beyond


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


def _covariance(one: Sequence[float], other: Sequence[float]) -> float:
    mean, mean_other = fmean(one), fmean(other)
    return sum((a - mean) * (b - mean_other) for a, b in zip(one, other, strict=True)) / (len(one) - 1)
