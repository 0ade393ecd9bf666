import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlab.evaluation.passes.buckets import Buckets
from hybridlab.tasks.slices import EACH_VALUE, POWERS_OF_TWO, SAMPLING_UNIT, Slice


def bucket_of_each(slice, values):
    """Return the name of each value's bucket, None where it is in none."""
    buckets = Buckets(slice, [np.array(values)])
    names = [*buckets.names, None]
    return [names[index] for index in buckets.of(np.array(values))]


@given(st.integers(1, 100), st.lists(st.integers(0, 10**9), min_size=1))
def test_a_value_lies_within_the_bounds_in_the_name_of_its_bucket(first, values):
    for value, name in zip(values, bucket_of_each(Slice("", "", POWERS_OF_TWO, first=first), values), strict=True):
        ends = [int(end) for end in name.split("-")]
        assert ends[0] <= value <= ends[-1]


def test_powers_of_two_begin_at_the_first():
    assert bucket_of_each(Slice("", "", POWERS_OF_TWO, first=64), [0, 63, 64, 127, 128, -1]) == [
        "0-63", "0-63", "64-127", "64-127", "128-255", None,
    ]  # fmt: skip
    assert bucket_of_each(Slice("", "", POWERS_OF_TWO, first=1), [0, 1, 2, 3, 4]) == ["0", "1", "2-3", "2-3", "4-7"]


@pytest.mark.parametrize("kind", [EACH_VALUE, SAMPLING_UNIT])
def test_each_value_has_its_own_bucket_named_by_its_label_if_it_has_one(kind):
    labelled = Slice("", "", kind, labels=("no", "yes"))
    assert bucket_of_each(labelled, [1, 0, -3, 7, 1]) == ["yes", "no", None, "7", "yes"]
    assert Buckets(labelled, [np.array([7]), np.array([0, -1])]).names == ("no", "7")
