import pytest

from hybridlab.records.measurement import Measurement
from hybridlab.report.runs.headline import headline_by
from hybridlab.report.runs.stack_runs import by_stack
from hybridlab.report.runs.statistics import Estimate
from hybridlab.report.runs.swaps import swap_row, swaps, verdict
from tests.records.examples import small_record
from tests.report.descriptions import MEASURES

ACCURACY, NLL = (headline_by(name, MEASURES) for name in ("accuracy", "nll"))
BASE = {"stack.groups.early.mixer": "full", "stack.groups.deep.mixer": "sliding", "stack.width": 128}


def run(seed, nll, status="finished", **changed):
    choices = {**BASE, **{key.replace("__", "."): value for key, value in changed.items()}}
    rows = [
        Measurement(measure="nll", value=nll, unit="nats/token", split="test"),
        Measurement(measure="nll", value=9.0, unit="nats/token", split="train", step=1),
        Measurement(measure="nll", value=9.0, unit="nats/token", split="test", slice="position", bucket="0-63"),
        Measurement(measure="parameters", value=100 + 10 * len(changed), unit="1"),
    ]
    return small_record(run_id=f"{choices}{seed}", seed=seed, choices=choices, measurements=rows, status=status)


def test_differences_are_paired_by_seed():
    linear = {"stack__groups__early__mixer": "linear"}
    records = [run(0, 1.0), run(1, 2.0), run(2, 3.0), run(3, 4.0, status="failed")]
    records += [run(0, 1.5, **linear), run(1, 2.7, **linear), run(3, 4.0, **linear), run(4, 0.0, **linear)]
    base, *others = by_stack(records)
    (swap,) = swaps(base, others, NLL)
    assert (swap.group, swap.before, swap.after) == ("early", "full", "linear")
    assert swap.difference.value == pytest.approx(0.6)
    assert swap.difference.n == 2
    half = 12.7062 * 0.1  # two differences, 0.5 and 0.7: their standard error is 0.1
    assert (swap.difference.low, swap.difference.high) == (
        pytest.approx(0.6 - half, 1e-4),
        pytest.approx(0.6 + half, 1e-4),
    )
    assert swap.parameters == pytest.approx(1.1)


def test_only_a_change_within_one_group_is_a_swap():
    both = {"stack__groups__early__mixer": "linear", "stack__groups__deep__mixer": "full"}
    base, *others = by_stack(
        [
            run(0, 1.0),
            run(0, 1.0, **both),
            run(0, 1.0, stack__groups__deep__mixer="full", stack__width=64),
            run(0, 1.0, stack__groups__deep__mixer="full", stack__groups__deep__layers=4),
            run(0, 1.0, stack__width=64),
            run(0, 1.0, stack__groups__deep__mixer="full", stack__groups__deep__settings__full__heads=4),
        ]
    )
    assert [(swap.group, swap.before, swap.after) for swap in swaps(base, others, NLL)] == [("deep", "sliding", "full")]


def test_a_mixer_set_otherwise_is_named_by_its_setting():
    window = "stack__groups__deep__settings__sliding__window"
    base, *others = by_stack([run(0, 1.0, **{window: 128}), run(0, 1.1, **{window: 256})])
    (swap,) = swaps(base, others, NLL)
    assert swap_row(swap) == (
        "deep",
        "sliding (window=128)",
        "sliding (window=256)",
        "one seed: no test",
        "+0.1000",
        "–",
        "1",
        "0.0 %",
    )


def test_a_swap_without_a_common_seed_is_still_a_row():
    base, other = by_stack([run(0, 1.0), run(1, 1.0, stack__groups__early__mixer="linear")])
    assert swap_row(swaps(base, [other], NLL)[0]) == (
        "early",
        "full",
        "linear",
        "–",
        "–",
        "–",
        "0",
        "+10.0 %",
    )


def test_the_swaps_of_a_table_are_corrected_together():
    linear, mamba2 = ({"stack__groups__early__mixer": mixer} for mixer in ("linear", "mamba2"))
    noise = (0.0, 0.01, 0.03)
    records = [run(seed, 1.0) for seed in range(3)]
    records += [run(seed, 1.1 + noise[seed], **linear) for seed in range(3)]
    base, *others = by_stack(records)
    (alone,) = swaps(base, others, NLL)
    t = 0.34 / 3 / (0.0152753 / 3**0.5)  # mean and standard error of 0.1, 0.11, 0.13
    assert alone.p == pytest.approx(1 - t / (2 + t**2) ** 0.5, rel=1e-4)  # Student's t with two degrees, in closed form
    assert alone.verdict == "worse"
    records += [run(seed, 1.1 + noise[seed], **mamba2) for seed in range(3)]
    base, *others = by_stack(records)
    both = swaps(base, others, NLL)
    assert [swap.p for swap in both] == pytest.approx([2 * alone.p] * 2)


@pytest.mark.parametrize(
    ("difference", "p", "headline", "word"),
    [
        (Estimate(0.1, 0.05, 0.15), 0.01, NLL, "worse"),
        (Estimate(-0.1, -0.15, -0.05), 0.01, NLL, "better"),
        (Estimate(0.1, 0.05, 0.15), 0.01, ACCURACY, "better"),
        (Estimate(-0.1, -0.15, -0.05), 0.01, ACCURACY, "worse"),
        (Estimate(0.1, 0.001, 0.2), 0.12, NLL, "no difference shown"),
        (Estimate(0.1), None, NLL, "one seed: no test"),
        (None, None, NLL, "–"),
    ],
)
def test_the_verdict_is_the_corrected_one(difference, p, headline, word):
    assert verdict(difference, p, headline) == word
