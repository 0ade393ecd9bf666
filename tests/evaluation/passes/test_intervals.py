import math
from typing import Any

import numpy as np
import pytest

from hybridlab.evaluation.passes.intervals import means


def interval(totals, weights) -> Any:
    (found,) = means(totals, weights)
    return found


def column(*values):
    return np.array(values, float)[:, None]


def test_the_mean_is_over_tokens_and_the_interval_over_documents():
    found = interval(column(10, 20, 60), column(10, 10, 20))
    assert found.value == pytest.approx(90 / 40)
    assert found.units == 3
    assert 1.0 <= found.low < found.value < found.high <= 3.0


def test_a_difference_that_is_the_same_in_every_document_has_an_interval_of_no_width():
    found = interval(column(1, 10, 4) / 2, column(1, 10, 4))
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_the_bootstrap_interval_has_the_width_that_theory_gives():
    values = np.random.default_rng(1).normal(size=400)
    found = interval(values[:, None], np.ones((400, 1)))
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(400), rel=0.15)


def test_one_document_has_no_interval_and_no_token_no_mean():
    found: list[Any] = means(np.array([[3.0, 0, 2], [0, 0, 2]]), np.array([[2.0, 0, 1], [0, 0, 1]]))
    one, none, two = found
    assert (one.value, one.low, one.high, one.units) == (1.5, None, None, 1)
    assert none is None
    assert (two.value, two.low, two.high, two.units) == (2.0, 2.0, 2.0, 2)


@pytest.mark.parametrize("documents", [20, 100])
def test_intervals_cover_the_true_mean(documents):
    """Documents differ in length and in the mean of their tokens; the mean of these means is 2."""
    draw, repeats = np.random.default_rng(3), 1000
    tokens = draw.integers(5, 60, size=(documents, repeats)).astype(float)
    of_documents = draw.normal(2, 1, size=(documents, repeats))
    totals = tokens * of_documents + np.sqrt(tokens) * draw.normal(0, 3, size=(documents, repeats))
    found: list[Any] = means(totals, tokens)
    assert 0.9 <= np.mean([each.low <= 2 <= each.high for each in found]) <= 0.99
    assert all(each.units == documents and each.low <= each.value <= each.high for each in found)
