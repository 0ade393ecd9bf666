import doctest
import math

import pytest

from hybridlab.report.runs import format, layers, stack_runs, titles
from hybridlab.report.runs.format import count, over, percent, setting, significant, with_interval
from hybridlab.report.runs.statistics import Estimate


def test_the_examples_of_the_docstrings_hold():
    for module in (format, layers, stack_runs, titles):
        assert doctest.testmod(module).attempted > 0
        assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("estimate", "signed", "text"),
    [
        (None, False, "–"),
        (Estimate(1.23456), False, "1.235"),
        (Estimate(-0.00123456), True, "−0.001235"),
        (Estimate(1.2345, 1.2, 1.3), False, "1.234\n[1.200, 1.300]"),
        (Estimate(0.1234, -0.1, 0.35), True, "+0.12\n[−0.10, 0.35]"),
        (Estimate(123.4, 80.0, 170.0), False, "123\n[80, 170]"),
        (Estimate(2.0, 2.0, 2.0), False, "2.0000\n[2.0000, 2.0000]"),
        (Estimate(0.00001, -0.001, 0.001), True, "0.0000\n[−0.0010, 0.0010]"),
        (Estimate(math.inf, 1.0, math.inf), False, "∞\n[1.0000, ∞]"),
        (Estimate(math.nan), False, "NaN"),
    ],
)
def test_digits_follow_the_interval(estimate, signed, text):
    assert with_interval(estimate, signed=signed) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (0.5, "0.500"),
        (999, "999"),
        (1000, "1.00k"),
        (12_345, "12.3k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (67_108_864, "67.1M"),
        (1.5e12, "1.50T"),
        (-2048, "−2.05k"),
        (math.inf, "∞"),
    ],
)
def test_counts_have_three_digits_and_a_suffix(value, text):
    assert count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1.5e-7, "1.500e-07"), (123456.7, "123457"), (9.99996, "10.00"), (-1.5, "−1.500")]
)
def test_other_numbers_have_four_digits(value, text):
    assert significant(value) == text


def test_small_words():
    assert percent(1.0721) == "+7.2 %"
    assert percent(1.0) == "0.0 %"
    assert [setting(value) for value in (None, True, 0.5, ["full", "mamba2"])] == ["null", "true", "0.5", "full mamba2"]
    assert over(Estimate(1.0)) == "–"
