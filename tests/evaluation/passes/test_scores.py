import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridlab.evaluation.passes.scores import Breakdown, Sums, means
from hybridlab.tasks.batch import IGNORED, Batch


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


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(-1, 300), st.integers(-1, 1), st.booleans(), st.floats(0, 9)),
        min_size=1,
    ),
    st.integers(1, 7),
)
def test_sums_are_those_of_a_loop_over_targets(targets, width):
    """Each target is a document, a position, whether it is a recall, whether it is scored, and its NLL."""
    batches, values = [], []
    for first in range(0, len(targets), width):
        document, position, recall, scored, value = map(torch.tensor, zip(*targets[first : first + width], strict=True))
        slices = {"document": document, "position": position, "recall": recall}
        wanted = torch.where(scored, 1, IGNORED)
        batches.append(Batch(document[None], wanted[None], {name: facts[None] for name, facts in slices.items()}))
        values.append(value[scored].numpy())
    breakdown = Breakdown(batches, ["position", "recall"])
    sums = Sums(breakdown)
    for batch, value in zip(batches, values, strict=True):
        sums.add(value, breakdown.places(batch))

    kept = [target for target in targets if target[3]]
    for unit in range(breakdown.units):
        mine = [target for target in kept if target[0] == unit]
        assert sums.by()[unit, 0] == pytest.approx(sum(target[4] for target in mine))
        for bucket, name in enumerate(breakdown.buckets["recall"].names):
            expected = sum(target[4] for target in mine if target[2] == ["other tokens", "recall"].index(name))
            assert sums.by("recall")[unit, bucket] == pytest.approx(expected)
        for bucket, name in enumerate(breakdown.buckets["position"].names):
            low, high = map(int, name.split("-"))
            expected = sum(target[4] for target in mine if low <= target[1] <= high)
            assert sums.by("position")[unit, bucket] == pytest.approx(expected)
