import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlab.tasks.counter_rng import CounterRng, keys_of, mix64


def draws(num: int) -> CounterRng:
    return CounterRng(keys_of(3, np.arange(num)))


def test_the_finaliser_is_splitmix64():
    state = np.uint64(0x9E3779B97F4A7C15) * np.arange(1, 4, dtype=np.uint64)
    # The first numbers of java.util.SplittableRandom's mix from the state 0.
    assert [hex(number) for number in mix64(state)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


@given(st.lists(st.integers(0, 99), min_size=1, max_size=20, unique=True), st.integers(2, 40))
def test_what_an_example_draws_depends_on_its_key_alone(chosen: list[int], high: int):
    def drawn(some: CounterRng) -> list[np.ndarray]:
        return [some.integers(high, 3), some.distinct(high, 2), some.weighted(np.arange(1.0, 9), 3), some.uniform(2)]

    for whole, part in zip(drawn(draws(100)), drawn(CounterRng(keys_of(3, np.array(chosen)))), strict=True):
        assert np.array_equal(whole[chosen], part)


@pytest.mark.parametrize(("high", "m"), [(5, 5), (40, 3), (4095, 64)])
def test_distinct_numbers_are_distinct_and_as_likely(high: int, m: int):
    found = draws(4000).distinct(high, m)
    assert all(len(set(row)) == m for row in found.tolist())
    assert found.min() >= 0
    assert found.max() < high
    # Each column's mean is that of the uniform distribution, within five standard errors.
    error = (high / np.sqrt(12)) / np.sqrt(len(found))
    assert np.abs(found.mean(axis=0) - (high - 1) / 2).max() < 5 * error


def test_ordered_choices_are_as_likely():
    found = draws(24000).distinct(17, 2)
    _, counts = np.unique(found @ np.array([17, 1]), return_counts=True)
    assert len(counts) == 17 * 16
    expected = 24000 / (17 * 16)
    assert ((counts - expected) ** 2 / expected).sum() < 272 + 5 * np.sqrt(2 * 272)


def test_ranked_numbers_are_drawn_in_proportion_to_the_weights_left():
    weights = np.array([5.0, 3.0, 1.0, 1.0])
    first, second = draws(40000).weighted(weights, 2).T
    for number, weight in enumerate(weights):
        assert (first == number).mean() == pytest.approx(weight / 10, abs=0.0125)
        after = np.delete(np.arange(4), number)
        for follower in after:
            share = (second[first == number] == follower).mean()
            assert share == pytest.approx(weights[follower] / weights[after].sum(), abs=0.035)
