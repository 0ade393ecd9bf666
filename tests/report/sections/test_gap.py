import math

import pytest

from hybridlab.report.runs.stack_runs import by_stack
from hybridlab.report.sections.recall_gap import gap_section, gap_share
from tests.report.examples import measurement, run

MIXER = "stack.groups.early.mixer"


def split(mixer, seed, recall, other, num_recall=64, num_other=936):
    """Return a run with these NLLs on recall tokens, by default 6.4 % of all, and on the others."""
    total = num_recall + num_other
    whole = (recall * num_recall + other * num_other) / total
    rows = [
        measurement("nll", whole, tokens=total),
        measurement("nll", recall, tokens=num_recall, slice="recall", bucket="recall"),
        measurement("nll", other, tokens=num_other, slice="recall", bucket="other tokens"),
    ]
    return run(
        {MIXER: mixer},
        seed,
        [*rows, *(measurement("perplexity", math.exp(r.value), slice=r.slice, bucket=r.bucket) for r in rows)],
    )


def test_the_share_of_a_gap_by_hand():
    """0.5 nats on 64 recall tokens, 0.01 on 936 others: 32 of 41.36 nats."""
    base, other = by_stack([split("full", 0, 0.7, 2.5), split("hyena", 0, 1.2, 2.51)])
    assert gap_share(base, other).value == pytest.approx(32 / 41.36)
    assert gap_share(base, other).low is None
    assert gap_share(other, base).value == pytest.approx(32 / 41.36)


def test_the_published_table_follows_from_its_own_perplexities():
    """The shares of Zoology's Table 1, 360M, within the rounding of its perplexities."""
    attention = split("attention", 0, math.log(1.98), math.log(10.62))
    for mixer, recall, other, printed in (("H3", 4.81, 11.0, 65.8), ("long_conv", 13.27, 13.12, 40.5)):
        stacks = by_stack([attention, split(mixer, 0, math.log(recall), math.log(other))])
        assert 100 * gap_share(*stacks).value == pytest.approx(printed, abs=6)


def test_the_share_has_an_interval_over_seeds_and_none_without_a_gap():
    noise = (0.0, 0.002, -0.001)
    full = [split("full", seed, 0.7 + noise[seed], 2.5) for seed in range(3)]
    worse = [split("hyena", seed, 1.2 - noise[seed], 2.51 + noise[seed]) for seed in range(3)]
    same = [split("mamba", seed, 0.7 - noise[seed], 2.5 + noise[seed]) for seed in range(3)]
    base, hyena, mamba = by_stack([*full, *worse, *same])
    share = gap_share(base, hyena)
    assert share.low < share.value < share.high
    assert share.n == 3
    assert gap_share(base, mamba) is None


def test_the_table_shows_perplexities_and_shares():
    base, other = by_stack([split("full", 0, 0.7, 2.5), split("hyena", 0, 1.2, 2.51)])
    (section,) = gap_section([base, other], base)
    table = section.tables[0]
    assert "6.4 % of all" in table.caption
    assert table.bodies[0][0] == ("full", "10.86", "2.014", "12.18", "–")
    assert table.bodies[0][1][-1] == "77.37"
    assert gap_section(by_stack([run({}, 0, [measurement("nll", 1.0)])]), base) == []
