"""The targets of the smaller rules, computed again from the inputs in a simple way."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.errors import ConfigError
from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.tasks.synthetic.compression import Compression
from hybridlab.tasks.synthetic.copying import Copying
from hybridlab.tasks.synthetic.fuzzy_recall import FuzzyRecall
from hybridlab.tasks.synthetic.in_context_recall import InContextRecall
from hybridlab.tasks.synthetic.induction import Induction
from hybridlab.tasks.synthetic.memorization import Memorization
from hybridlab.tasks.synthetic.selective_copying import SelectiveCopying

COMMON: dict[str, Any] = {"seed": 0, "batch": 32, "examples": None, "held_out": 32}


def scored(task, split: str = "test") -> list[tuple[list[int], list[int], list[int]]]:
    """Return inputs, targets and distances of each held-out sequence."""
    return [
        row for batch in task.evaluation_batches(split, window=1, stride=1, limit=None, batch=32) for row in of(batch)
    ]


def of(batch: Batch) -> list[tuple[list[int], list[int], list[int]]]:
    distance = batch.slices.get("distance", batch.targets)
    return list(zip(*(each.tolist() for each in (batch.inputs, batch.targets, distance)), strict=True))


def test_induction_asks_for_what_followed_the_trigger():
    for row, targets, distance in scored(Induction(**COMMON, vocabulary=16, length=24, multiples=[1, 3])):
        first = row.index(15)
        assert row.count(15) == 2
        assert row[-1] == 15
        assert targets == [IGNORED] * (len(row) - 1) + [row[first + 1]]
        assert row[len(row) - distance[-1]] == targets[-1]


def test_a_copy_is_the_string_again():
    for row, targets, distance in scored(Copying(**COMMON, vocabulary=9, length=20, multiples=[1, 2])):
        half = len(row) // 2
        assert row[half:] == [8, *row[: half - 1]]
        assert targets == [IGNORED] * half + row[:half]
        assert_answer_at_its_distance(row, targets, distance)
        assert max(row[:half]) < 8


def test_selective_copying_asks_for_the_tokens_in_their_order():
    for row, targets, distance in scored(SelectiveCopying(**COMMON, vocabulary=10, length=40, copied=6)):
        assert row.index(9) == 40 - 6 - 1
        assert row[-6:] == [8] * 6
        assert [token for token in row if token < 8] == targets[-6:]
        assert row[40 - 6 - 2] < 8
        assert targets[:-6] == [IGNORED] * 34
        assert_answer_at_its_distance(row, targets, distance)


def test_compression_asks_for_the_whole_sequence():
    found = scored(Compression(**COMMON, vocabulary=7, length=18))
    for row, targets, distance in found:
        assert row.index(6) == 17
        assert targets == row
        assert distance == list(range(18, 0, -1))
    assert {token for row, _, _ in found for token in row} == set(range(7))


def assert_answer_at_its_distance(row: list[int], targets: list[int], distance: list[int]):
    """Check that the answer lies `distance` before the position after each supervised input."""
    for place, target in enumerate(targets):
        if target != IGNORED:
            assert row[place + 1 - distance[place]] == target


def test_memorization_has_the_same_facts_in_every_split_and_for_every_seed():
    facts: dict[int, set[int]] = {}
    for seed in (0, 1):
        task = Memorization(**COMMON | {"seed": seed}, vocabulary=21, length=32)
        for row, targets, _ in [*scored(task), *scored(task, "validation"), *of(task.train_batch(0))]:
            assert row[1::2] == [20] * 16
            assert targets[::2] == [IGNORED] * 16
            for key, value in zip(row[::2], targets[1::2], strict=True):
                facts.setdefault(key, set()).add(value)
    assert set(facts) == set(range(10))
    assert all(len(values) == 1 for values in facts.values())
    assert len(set.union(*facts.values())) == 10
    assert set.union(*facts.values()) <= set(range(10, 20))


@given(
    st.integers(6, 12),
    st.integers(4, 20),
    st.sampled_from([(0, 0.0), (3, 0.2), (3, 0.9)]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40)
def test_recall_scores_the_value_of_each_key_shown_before(meaningful: int, num_pairs: int, noise: tuple, seed: int):
    changed: dict[str, Any] = {
        "vocabulary": meaningful + noise[0],
        "length": 2 * num_pairs,
        "noise_vocabulary": noise[0],
        "noise_share": noise[1],
    }
    task = InContextRecall(**COMMON | {"seed": seed}, **changed, train_on="recalled")
    whole = InContextRecall(**COMMON | {"seed": seed}, **changed)
    assert whole.train_batch(0).targets[:, :-1].equal(task.train_batch(0).inputs[:, 1:])
    num_keys = meaningful // 2
    for row, targets, distance in of(task.train_batch(0)):
        value_of: dict[int, int] = {}
        for place in range(0, len(row), 2):
            key, value = row[place : place + 2]
            if key >= meaningful:
                assert value >= meaningful
                assert targets[place] == IGNORED
                assert place < len(row) - 2
                continue
            assert key < num_keys <= value < meaningful
            assert targets[place] == (value_of.get(key, IGNORED))
            assert value == value_of.setdefault(key, value)
        assert targets[-2] != IGNORED
        assert targets[1::2] == [IGNORED] * num_pairs
        assert_answer_at_its_distance(row, targets, distance)


def test_noise_is_as_frequent_as_set():
    task = InContextRecall(**COMMON | {"batch": 500}, vocabulary=32, length=64, noise_vocabulary=16, noise_share=0.4)
    keys = task.train_batch(0).inputs[:, :-2:2]
    assert (keys >= 16).float().mean().item() == pytest.approx(0.4 * 30 / 31, abs=0.015)


@given(st.integers(3, 9), st.integers(1, 3), st.integers(1, 3), st.integers(14, 60), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_fuzzy_recall_scores_every_token_of_a_value_shown_before(
    half: int, key_size: int, value_size: int, length: int, seed: int
):
    changed: dict[str, Any] = {
        "vocabulary": 2 * half + 1,
        "length": length,
        "key_size": key_size,
        "value_size": value_size,
    }
    task = FuzzyRecall(**COMMON | {"seed": seed}, **changed, train_on="recalled")
    every = FuzzyRecall(**COMMON | {"seed": seed}, **changed).train_batch(0)
    assert every.targets[:, :-1].equal(task.train_batch(0).inputs[:, 1:])
    for row, targets, distance in of(task.train_batch(0)):
        told = [
            row[0],
            *(token if token != IGNORED else after for token, after in zip(targets, [*row[1:], -1], strict=True)),
        ]
        text = [token for token in told if token != 2 * half]
        assert told[: len(told) - len(text)] == [2 * half] * (len(told) - len(text))
        value_of: dict[tuple, tuple] = {}
        expected: list[int] = [IGNORED] * (len(told) - len(text))
        while text:
            key, value, text = taken(text, half)
            assert len(set(key)) == len(key) <= key_size
            assert len(set(value)) == len(value) <= value_size
            expected += [IGNORED] * len(key)
            expected += value if key in value_of else [IGNORED] * len(value)
            assert value == value_of.setdefault(key, value)
        assert targets == expected[1:]
        assert targets[-1] != IGNORED
        assert_answer_at_its_distance(row, targets, distance)


def taken(text: list[int], half: int) -> tuple[tuple, tuple, list[int]]:
    """Split off the first pair: a run of key tokens, then a run of value tokens."""
    ends = next((at for at, token in enumerate(text) if token >= half))
    stops = next((at for at in range(ends, len(text)) if text[at] < half), len(text))
    return tuple(text[:ends]), tuple(text[ends:stops]), text[stops:]


def test_fuzzy_keys_have_every_size_in_training_and_the_full_size_when_held_out():
    task = FuzzyRecall(**COMMON, vocabulary=31, length=60, train_on="recalled")
    sizes = Counter()
    for row, _, _ in scored(task):
        text = [token for token in row if token != 30]
        while any(token >= 15 for token in text):
            key, _, text = taken(text, 15)
            sizes[len(key)] += 1
    assert set(sizes) == {3}
    in_training = np.unique(
        [len(taken([token for token in row if token != 30], 15)[0]) for row, _, _ in of(task.train_batch(0))]
    )
    assert set(in_training) == {1, 2, 3}


@pytest.mark.parametrize(
    ("rule", "wrong", "message"),
    [
        (InContextRecall, {"noise_share": 0.2}, "noise_share=0.2: needs a noise_vocabulary of at least 1"),
        (InContextRecall, {"noise_share": 1.0}, "noise_share=1.0: must be a number of at least 0 and below 1"),
        (InContextRecall, {"train_on": "all"}, "train_on=all: allowed: every, recalled"),
        (InContextRecall, {"length": 15}, "length=15: must be even: keys and values come in pairs"),
        (FuzzyRecall, {"length": 8}, "length=8: two pairs of key_size=3 and value_size=3 must fit"),
        (FuzzyRecall, {"vocabulary": 6}, "vocabulary=6: must be a whole number of at least 7"),
        (
            SelectiveCopying,
            {"copied": 8},
            "length=16: must be above 2 x copied + 1 = 17: the tokens, the mark and the answers",
        ),
        (Memorization, {"length": 15}, "length=15: must be even: keys and marks come in pairs"),
        (Compression, {"length": 1}, "length=1: must be a whole number of at least 2"),
        (Induction, {"vocabulary": 2}, "vocabulary=2: must be a whole number of at least 3"),
    ],
)
def test_bad_settings_are_refused(rule: type, wrong: dict, message: str):
    with pytest.raises(ConfigError) as caught:
        rule(**COMMON | {"vocabulary": 16, "length": 16} | wrong)
    assert str(caught.value) == message
