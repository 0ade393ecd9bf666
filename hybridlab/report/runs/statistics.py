"""Means with 95 % intervals over seeds, and tests corrected for multiplicity; without scipy."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist, fmean

from hybridlab.records.measurement import OVER_SEEDS, Measurement

ROUNDING = 1e-9  # smaller differences may come from rounding
SIMPSON = 400  # steps of the integral of a power


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
    half = t_quantile(num_seeds - 1) * spread(values) / math.sqrt(num_seeds)
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
    return p_each_way(values, bound)[0]


def p_each_way(values: Sequence[float], bound: float = 0.0) -> tuple[float, float]:
    """Return the one-sided p-values for a mean over seeds above, and below, `bound`."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return 1.0, 1.0
    excess, deviation = fmean(values) - bound, spread(values)
    if deviation < ROUNDING:
        return (0.0 if excess > ROUNDING else 1.0), (0.0 if excess < -ROUNDING else 1.0)
    beyond = t_tail(abs(excess) / deviation * math.sqrt(len(values)), len(values) - 1)
    return (beyond, 1 - beyond) if excess > 0 else (1 - beyond, beyond)


def p_differs(values: Sequence[float], bound: float = 0.0) -> float:
    """Return the two-sided p-value of Student's t test for a mean over seeds other than `bound`."""
    return min(1.0, 2 * min(p_each_way(values, bound)))


def interval_at(values: Sequence[float], below: float, above: float) -> Estimate:
    """Return the mean with an interval that misses it by chance with these probabilities: the true
    mean is `below` the interval, or `above` it. One seed has none.
    """
    plain = over_seeds(list(values))
    if plain.low is None:
        return plain
    error = spread(values) / math.sqrt(len(values))
    low, high = (t_quantile(len(values) - 1, 1 - 2 * tail) * error for tail in (below, above))
    return Estimate(plain.value, plain.value - low, plain.value + high, OVER_SEEDS, plain.n)


def power(effect: float, num_seeds: int, tail: float) -> float:
    """Return the probability that a one-sided paired t test at the level `tail` shows an effect.

    `effect` is the true mean over the true standard deviation of one seed's difference. With s the
    root of a chi-squared variable over its degrees of freedom, it is the mean of
    P(Z > t s - effect sqrt(n)) over s, by Simpson's rule.
    """
    degrees = num_seeds - 1
    t, shift = t_quantile(degrees, 1 - 2 * tail), abs(effect) * math.sqrt(num_seeds)
    log_constant = math.log(2) + degrees / 2 * math.log(degrees / 2) - math.lgamma(degrees / 2)
    last = 1 + 8 / math.sqrt(degrees)
    normal, total = NormalDist(), 0.0
    for step in range(1, SIMPSON):
        s = last * step / SIMPSON
        density = math.exp(log_constant + (degrees - 1) * math.log(s) - degrees / 2 * s * s)
        total += (4 if step % 2 else 2) * density * normal.cdf(shift - t * s)
    return min(1.0, total * last / SIMPSON / 3)


def seeds_needed(effect: float, tail: float, wanted: float = 0.8, most: int = 100) -> int | None:
    """Return the fewest seeds, two or more, with which `power` is `wanted`; None if more than
    `most`.
    """
    if not effect or power(effect, most, tail) < wanted:
        return None
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power(effect, middle, tail) < wanted else (low, middle)
    return high


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


@cache
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


def spread(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample."""
    mean = fmean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _covariance(one: Sequence[float], other: Sequence[float]) -> float:
    mean, mean_other = fmean(one), fmean(other)
    return sum((a - mean) * (b - mean_other) for a, b in zip(one, other, strict=True)) / (len(one) - 1)
