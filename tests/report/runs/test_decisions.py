"""The error budget of a table: false decisions, coverage and power, by simulation."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlab.report.runs.decisions import LEVEL, corrected
from hybridlab.report.runs.statistics import interval_at, over_seeds, p_differs, p_each_way, power, seeds_needed
from hybridlab.report.sweeps.claims import FAILS, HOLDS, UNDECIDED, judge

TABLES = 10_000


def test_a_single_test_is_the_usual_two_sided_one():
    values = [0.5, 0.7, 0.9]
    (one,) = corrected([p_each_way(values)])
    assert (one.p, one.tail) == (pytest.approx(p_differs(values)), LEVEL / 2)


def test_both_directions_of_all_statements_share_the_budget():
    found = corrected([(0.001, 0.999), (0.99, 0.01), (0.2, 0.8)])
    assert [test.p for test in found] == pytest.approx([6 * 0.001, 5 * 0.01, 4 * 0.2])
    assert [test.among for test in found] == [6, 5, 5]  # the second is not shown: so the third is tested among as many
    assert [test.shown for test in found] == [True, False, False]
    assert corrected([]) == []


@given(st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=1, max_size=6), st.floats(0, 1))
def test_a_p_and_its_interval_say_the_same(table, shift):
    table = [[value + shift for value in values] for values in table]
    for values, test in zip(table, corrected([p_each_way(values) for values in table]), strict=True):
        together, alone = interval_at(values, test.tail, test.tail), over_seeds(values)
        for p, interval in ((test.p, together), (p_differs(values), alone)):
            if abs(p - LEVEL) > 1e-6 and min(abs(interval.low), abs(interval.high)) > 1e-6:
                assert (p < LEVEL) == (interval.low > 0 or interval.high < 0)


def test_the_power_of_a_t_test_agrees_with_printed_tables():
    assert power(1.0, 10, 0.025) == pytest.approx(0.803, abs=1e-3)  # Cohen 1988: d = 1, 10 pairs
    assert power(0.5, 34, 0.025) == pytest.approx(0.808, abs=1e-3)
    assert power(0.0, 5, 0.025) == pytest.approx(0.025, abs=1e-4)
    assert seeds_needed(1.0, 0.025) == 10
    assert seeds_needed(-1.0, 0.025) == 10
    assert (seeds_needed(0.0, 0.025), seeds_needed(0.01, 0.025)) == (None, None)


def draw(rng, means, num_seeds=3):
    return [[[rng.gauss(mean, 1) for _ in range(num_seeds)]] for mean in means]


@pytest.mark.slow
@pytest.mark.parametrize("m", [1, 7])
def test_one_null_table_in_twenty_has_a_false_decision(m):
    rng = random.Random(m)
    false = covered = 0
    for _ in range(TABLES):
        table = draw(rng, [0.0] * m)
        verdicts = judge(table)
        false += any(verdict.word != UNDECIDED for verdict in verdicts)
        (first,), test = table[0], verdicts[0].test
        interval = interval_at(first, test.tail, test.tail)
        covered += interval.low <= 0 <= interval.high
    print(f"\nm = {m}, no effect: {false / TABLES:.1%} of tables with a false decision; {covered / TABLES:.1%} covered")
    assert false / TABLES < LEVEL + 0.006  # 5 % within 2.8 standard errors of 10,000 tables
    assert false / TABLES > 0.03 if m == 1 else covered / TABLES > 0.985


@pytest.mark.slow
@pytest.mark.parametrize(("m", "effect", "num_seeds"), [(1, 2.0, 3), (1, 2.0, 5), (7, 4.0, 3), (7, 2.0, 8)])
def test_effects_are_found_as_often_as_the_power_says(m, effect, num_seeds):
    """Of each table, the first claim is true by `effect`, the second false by as much."""
    rng = random.Random(m + num_seeds)
    means = [effect, -effect, *[0.0] * (m - 2)] if m > 1 else [effect]
    found = wrong = covered = 0
    for _ in range(TABLES):
        table = draw(rng, means, num_seeds)
        verdicts = judge(table)
        words = [verdict.word for verdict in verdicts]
        found += words[0] == HOLDS
        wrong += words[0] == FAILS or HOLDS in words[1:2] or any(word != UNDECIDED for word in words[2:])
        (first,), test = table[0], verdicts[0].test
        interval = interval_at(first, test.tail, test.tail)
        covered += interval.low <= effect <= interval.high
    least = power(effect, num_seeds, LEVEL / 2 / m)
    print(
        f"\nm = {m}, effect {effect} standard deviations, {num_seeds} seeds: {found / TABLES:.1%} shown "
        f"(at least {least:.1%}), {wrong / TABLES:.1%} of tables with a false decision, {covered / TABLES:.1%} covered"
    )
    assert found / TABLES > least - 0.015
    assert m > 1 or found / TABLES == pytest.approx(least, abs=0.015)
    assert wrong / TABLES < LEVEL + 0.006
    assert covered / TABLES > 0.94


def test_a_claim_of_several_inequalities_spends_no_more():
    """A chain that is level everywhere is neither shown nor its opposite."""
    rng = random.Random(0)
    false = 0
    for _ in range(1000):
        chain = [[rng.gauss(0, 1) for _ in range(3)] for _ in range(3)]
        false += judge([chain])[0].word != UNDECIDED
    assert false / 1000 < 0.07


def test_claims_that_are_not_testable_count_and_are_never_decided():
    certain = [[5.0, 5.1, 5.2]]
    alone, (first, second) = judge([certain])[0], judge([certain, certain], [True, False])
    assert (first.word, second.word) == (HOLDS, "not testable here")
    assert first.test.p == pytest.approx(2 * alone.test.p)
