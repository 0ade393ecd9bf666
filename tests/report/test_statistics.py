import math

import pytest

from hybridlab.records.measurement import BOOTSTRAP, OVER_SEEDS, Measurement
from hybridlab.report.statistics import Estimate, estimate, over_seeds, t_quantile


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
