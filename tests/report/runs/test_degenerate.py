"""Mixers that their settings turn into others, and comparisons of a stack with itself."""

import pytest

from hybridlab.records.archive import read_archive
from hybridlab.report import build
from hybridlab.report.runs.degenerate import becomes, identical, same_stack
from hybridlab.report.runs.headline import headline_by
from hybridlab.report.runs.stack_runs import by_stack
from hybridlab.report.runs.swaps import swaps
from hybridlab.report.sweeps.table import reference
from tests.report.descriptions import MEASURES
from tests.report.examples import measurement, run

ATTENTION = {"heads": 4, "kv_heads": None, "rope": 10000.0, "qk_norm": False}
NLL = headline_by("nll", MEASURES)


@pytest.mark.parametrize(
    ("settings", "other"),
    [
        ({"_target_": "a.Sliding", "window": 64, "global_tokens": 0}, "Full"),
        ({"_target_": "a.Sliding", "window": 63, "global_tokens": 0}, None),
        ({"_target_": "a.Sliding", "window": 1, "global_tokens": 64}, "Full"),
        ({"_target_": "a.Dilated", "window": 64, "dilation": 1}, "Full"),
        ({"_target_": "a.Dilated", "window": 8, "dilation": 1}, "Sliding"),
        ({"_target_": "a.Dilated", "window": 64, "dilation": 2}, None),
        ({"_target_": "a.Strided", "stride": 64}, "Full"),
        ({"_target_": "a.Strided", "stride": 1}, "Full"),
        ({"_target_": "a.Strided", "stride": 32}, None),
        ({"_target_": "a.Moba", "block": 16, "top_k": 4}, "Full"),
        ({"_target_": "a.Moba", "block": 16, "top_k": 3}, None),
        ({"_target_": "a.Bigbird", "block": 16, "window_blocks": 2, "global_blocks": 1, "random_blocks": 1}, "Full"),
        ({"_target_": "a.Bigbird", "block": 16, "window_blocks": 1, "global_blocks": 1, "random_blocks": 1}, None),
        ({"_target_": "a.Full"}, None),
    ],
)
def test_what_a_mixer_is_on_short_sequences(settings, other):
    found = becomes({**settings, **ATTENTION}, 64)
    assert (found and found.mixer["_target_"]) == other


def made(mixer, settings, nll, length=64, **changed):
    layer = {"layer": 0, "group": "deep", "mixer": mixer, "settings": {**settings, **ATTENTION}, "channel": None}
    choices = {"stack.groups.deep.mixer": mixer, "stack.width": 64, **changed}
    choices |= {f"stack.groups.deep.settings.{mixer}.{key}": value for key, value in settings.items()}
    records = []
    for seed in range(3):
        record = run(choices, seed, [measurement("nll", nll + seed / 7)])
        record.plan, record.config = [layer], {"task": {"length": length, "batch": 4}}
        records.append(record)
    return records


FULL = {"_target_": "hybridlab.mixers.attention.full.Full"}
SLIDING = {"_target_": "hybridlab.mixers.sparse.sliding.Sliding", "global_tokens": 0}


def test_a_window_of_the_whole_sequence_is_full_attention_whatever_the_rounding():
    base, *others = by_stack(
        [
            *made("full", FULL, 1.0),
            *made("sliding", {**SLIDING, "window": 64}, 1.0 + 1e-6),
            *made("sliding", {**SLIDING, "window": 16}, 1.2),
        ]
    )
    whole, narrow = swaps(base, others, NLL)
    assert whole.verdict == "identical: a window of 64 covers sequences of 64: `sliding` is `full`"
    assert (whole.p, narrow.verdict) == (None, "worse")  # and the other is corrected for one test
    assert [why for *_, why in identical([base, *others])] == [
        "a window of 64 covers sequences of 64: `sliding` is `full`"
    ]


def test_two_windows_beyond_the_sequence_are_the_same():
    one, other = by_stack(
        made("sliding", {**SLIDING, "window": 64}, 1.0) + made("sliding", {**SLIDING, "window": 128}, 1.0)
    )
    assert "`sliding` is `full`" in same_stack(one, other)


def test_longer_sequences_in_the_evaluation_tell_them_apart():
    records = made("full", FULL, 1.0) + made("sliding", {**SLIDING, "window": 64}, 1.1)
    for record in records:
        record.evaluations = {"key": {"split": "test", "window": 256}}
    assert same_stack(*by_stack(records)) == ""


def test_stacks_that_differ_elsewhere_are_not_the_same():
    one, other = by_stack(
        made("full", FULL, 1.0) + made("sliding", {**SLIDING, "window": 64}, 1.1, **{"optimizer.beta1": 0.8})
    )
    assert same_stack(one, other) == ""


def test_a_chunk_changes_only_the_speed():
    linear = {"_target_": "hybridlab.mixers.linear.linear.Linear"}
    one, other = by_stack(made("linear", {**linear, "chunk": 32}, 1.0) + made("linear", {**linear, "chunk": 64}, 1.0))
    assert same_stack(one, other) == "`chunk` changes only how it is computed"


def test_equal_numbers_are_named_and_equal_scores_alone_are_not():
    one, other = by_stack(made("full", FULL, 1.0) + made("mine", {"_target_": "mine.Mixer"}, 1.0))
    assert same_stack(one, other) == "all their numbers are the same, with every seed"
    right = [
        run({"stack.groups.deep.mixer": mixer}, seed, [measurement("accuracy", 1.0)])
        for mixer in ("full", "mine")
        for seed in (0, 1)
    ]
    assert same_stack(*by_stack(right)) == ""


def test_the_report_names_a_window_of_the_whole_sequence():
    found = build.of_records(read_archive(reference("mqar_window")))
    assert "A window of 32 covers sequences of 32: `sliding` is `full`." in found.warnings
