import math
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlab.records.measurement import BOOTSTRAP, OVER_SEEDS, Measurement
from hybridlab.report.runs.statistics import (
    Estimate,
    estimate,
    holm,
    over_seeds,
    p_above,
    p_differs,
    ratio_over_seeds,
    t_quantile,
    t_tail,
)


@pytest.mark.parametrize(
    ("degrees", "confidence", "tabled"),
    [
        (1, 0.95, 12.7062),
        (2, 0.95, 4.3027),
        (3, 0.95, 3.1824),
        (4, 0.95, 2.7764),
        (5, 0.99, 4.0321),
        (6, 0.90, 1.9432),
        (9, 0.95, 2.2622),
        (10, 0.95, 2.2281),
        (29, 0.95, 2.0452),
        (30, 0.95, 2.0423),
        (120, 0.95, 1.9799),
        (1001, 0.95, 1.9623),
    ],
)
def test_quantiles_agree_with_printed_tables(degrees, confidence, tabled):
    assert t_quantile(degrees, confidence) == pytest.approx(tabled, abs=5.1e-5)


def test_a_mean_over_seeds_by_hand():
    found = over_seeds([1.0, 2.0, 3.0], tokens=7)
    half = 4.302653 / math.sqrt(3)
    assert (found.value, found.interval, found.n, found.tokens) == (2.0, OVER_SEEDS, 3, 7)
    assert (found.low, found.high) == (pytest.approx(2 - half), pytest.approx(2 + half))


@pytest.mark.parametrize("values", [[1.0], [1.0, math.inf], [1.0, math.nan]])
def test_there_is_no_interval_without_two_finite_values(values):
    found = over_seeds(values)
    assert (found.low, found.high, found.n) == (None, None, len(values))


def test_a_single_run_keeps_its_own_interval():
    row = {
        "measure": "nll",
        "unit": "nats/token",
        "low": 0.9,
        "high": 1.2,
        "interval": BOOTSTRAP,
        "n": 23,
        "tokens": 50,
    }
    one = Measurement(value=1.0, **row)
    assert estimate([one]) == Estimate(1.0, 0.9, 1.2, BOOTSTRAP, 23, 50)
    assert estimate([one, Measurement(value=3.0, **row)]).interval == OVER_SEEDS


@pytest.mark.parametrize(
    ("t", "degrees", "tabled"),
    [(6.3138, 1, 0.05), (4.3027, 2, 0.025), (2.1318, 4, 0.05), (2.7638, 10, 0.01), (3.8495, 29, 0.0003), (0.0, 3, 0.5)],
)
def test_tails_agree_with_printed_tables(t, degrees, tabled):
    assert t_tail(t, degrees) == pytest.approx(tabled, rel=2e-3)
    assert t_tail(-t, degrees) == pytest.approx(1 - tabled, rel=2e-3)


def test_a_t_test_by_hand():
    values = [0.5, 0.7, 0.9]  # mean 0.7, standard error 0.2 / sqrt(3)
    t = 0.7 / 0.2 * math.sqrt(3)
    assert p_differs(values) == pytest.approx(1 - t / math.sqrt(2 + t**2))  # two degrees of freedom, in closed form
    assert p_above(values) == pytest.approx(p_differs(values) / 2)
    assert p_above(values, bound=0.7) == pytest.approx(0.5)
    assert p_above([-value for value in values]) == pytest.approx(1 - p_above(values))


def test_a_t_test_without_spread_or_without_seeds():
    assert (p_above([1.0, 1.0]), p_above([0.0, 0.0]), p_above([-1.0, -1.0])) == (0.0, 1.0, 1.0)
    assert (p_differs([1.0, 1.0]), p_differs([0.0, 0.0])) == (0.0, 1.0)
    assert p_above([0.3 - 0.2, 0.3 - 0.2], bound=0.1) == 1.0  # 0.09999999999999998
    assert p_above([0.1 + 0.2, 0.1 + 0.2], bound=0.3) == 1.0  # 0.30000000000000004
    assert (p_above([1.0]), p_differs([1.0, math.nan])) == (1.0, 1.0)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni(p_values):
    corrected = holm(p_values)
    for p, found in zip(p_values, corrected, strict=True):
        assert p <= found <= min(1.0, len(p_values) * p)
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    assert [corrected[place] for place in order] == sorted(corrected)


def test_the_interval_of_a_ratio_holds_what_the_seeds_do_not_refuse():
    """At the ends of Fieller's interval, `above - ratio * below` is as far from 0 as t allows."""
    above, below = [0.9, 1.3, 1.0, 1.2], [1.8, 2.1, 1.9, 2.4]
    found = ratio_over_seeds(above, below)
    assert found.value == pytest.approx(fmean(above) / fmean(below))
    for end in (found.low, found.high):
        rest = [a - end * b for a, b in zip(above, below, strict=True)]
        assert abs(fmean(rest)) / (stdev(rest) / 2) == pytest.approx(t_quantile(3))
    assert ratio_over_seeds(above, [1.0, -1.1, 0.9, -0.7]) is None
    assert ratio_over_seeds([1.0], [2.0]) == Estimate(0.5, n=1)
    assert ratio_over_seeds([1.0], [0.0]) is None
