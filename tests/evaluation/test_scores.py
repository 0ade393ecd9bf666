import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlab.evaluation.scores import Scores, bucket_name, bucket_of, mean, num_buckets


def scores_of(nll_by_document, position=0, longest=128):
    scores = Scores.empty(len(nll_by_document), longest)
    for document, nll in enumerate(nll_by_document):
        scores.add(np.array(nll, float), np.full(len(nll), document), np.full(len(nll), position))
    return scores


@given(st.integers(0, 10**6))
def test_a_position_lies_within_the_bucket_that_bears_its_name(position):
    low, high = map(int, bucket_name(int(bucket_of(np.array([position]))[0])).split("-"))
    assert low <= position <= high


@given(st.integers(1, 10**6))
def test_the_last_position_falls_into_the_last_bucket(longest):
    assert bucket_of(np.array([longest - 1]))[0] == num_buckets(longest) - 1


def test_the_mean_is_over_tokens_and_the_interval_over_documents():
    found = mean(scores_of([[1.0] * 10, [2.0] * 10, [3.0] * 20]))
    assert found is not None
    assert found.value == pytest.approx((10 + 20 + 60) / 40)
    assert (found.documents, found.tokens) == (3, 40)
    assert found.low is not None
    assert found.high is not None
    assert 1.0 <= found.low < found.value < found.high <= 3.0


def test_a_difference_is_paired_by_document():
    base = scores_of([[1.0], [5.0], [9.0]])
    more = scores_of([[1.5], [5.5], [9.5]])
    found = mean(more, minus=base)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_the_bootstrap_interval_has_the_width_that_theory_gives():
    values = np.random.default_rng(1).normal(size=400)
    found = mean(scores_of([[value] for value in values]))
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    expected = 2 * 1.96 * values.std() / math.sqrt(400)
    assert found.high - found.low == pytest.approx(expected, rel=0.15)


def test_one_document_has_no_interval_and_an_empty_bucket_no_mean():
    one = mean(scores_of([[1.0, 2.0]]))
    assert one is not None
    assert (one.value, one.low, one.high) == (1.5, None, None)
    assert mean(scores_of([[1.0]], position=0), bucket=1) is None
