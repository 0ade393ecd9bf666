"""How the examples of a rule are divided, ordered and counted, on a rule of a few settings."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.errors import ConfigError
from hybridlab.tasks.base import SPLITS
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.synthetic.copying import Copying
from hybridlab.tasks.synthetic.mqar import MQAR

MIX: dict[str, Any] = {
    "training": [{"length": 16, "pairs": 2, "examples": 10}, {"length": 32, "pairs": 3, "examples": 21}],
    "evaluation": [{"length": 16, "pairs": 2, "examples": 30}, {"length": 64, "pairs": 4, "examples": 10}],
}


def copying(**settings) -> Copying:
    return Copying(
        **{"seed": 0, "vocabulary": 8, "length": 12, "batch": 4, "examples": None, "held_out": 40} | settings
    )


def mix(**settings) -> MQAR:
    common: dict[str, Any] = {"seed": 0, "vocabulary": 128, "length": 32, "batch": 4}
    return MQAR(**common | MIX | settings)


def evaluated(task, split: str, limit: int | None = None, batch: int = 7) -> list[Batch]:
    return list(task.evaluation_batches(split, window=1, stride=1, limit=limit, batch=batch))


def rows(batches: list[Batch]) -> list[tuple]:
    return [tuple(row) for batch in batches for row in batch.inputs.tolist()]


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_the_same_sequence_is_never_of_two_splits_whatever_the_seeds(one: int, other: int):
    """The rule has 19^3 sequences: by chance most held-out ones would be trained on too."""
    few: dict[str, Any] = {"vocabulary": 20, "length": 6, "batch": 3000, "held_out": 100}
    trained = {row for seed in (one, other) for row in rows([copying(seed=seed, **few).train_batch(0)])}
    tested, validated = (set(rows(evaluated(copying(**few), split))) for split in ("test", "validation"))
    assert len(trained) > 2000
    assert len(trained | tested | validated) == len(trained) + len(tested) + len(validated)


def test_a_split_that_would_be_made_of_repeats_is_refused():
    with pytest.raises(ConfigError, match=r"held_out=40: the rule draws only \d+ different test sequences"):
        evaluated(copying(vocabulary=4, length=6), "test")


def test_a_rule_without_sequences_for_a_split_is_refused():
    with pytest.raises(ConfigError, match="length=2: with these settings the rule has too few sequences to fill"):
        [evaluated(copying(vocabulary=3, length=2, held_out=1), split) for split in SPLITS]


def test_a_fixed_set_is_gone_through_in_another_order_each_epoch():
    task = copying(examples=22, batch=4)
    epochs = [rows([task.train_batch(step) for step in range(5 * epoch, 5 * epoch + 5)]) for epoch in range(6)]
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert len(set().union(*epochs)) == 22
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert rows([task.train_batch(0)]) == epochs[0][:4]


def test_fresh_examples_do_not_come_again():
    task = copying(vocabulary=64)
    found = rows([task.train_batch(step) for step in range(50)])
    assert len(set(found)) == len(found)


def test_the_published_order_is_segment_after_segment_and_the_same_each_epoch():
    task = mix(order="published")
    steps = [task.train_batch(step) for step in range(14)]
    assert [batch.inputs.shape[1] for batch in steps] == 2 * (2 * [16] + 5 * [32])
    assert [batch.slices["document"][:, 0].tolist() for batch in steps[:3]] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [10, 11, 12, 13],
    ]
    assert rows(steps[:7]) == rows(steps[7:])


def test_the_shuffled_order_mixes_batches_of_one_segment_each():
    task = mix()
    steps = [task.train_batch(step) for step in range(70)]
    assert Counter(batch.inputs.shape[1] for batch in steps) == {16: 20, 32: 50}
    assert len({tuple(batch.inputs.shape[1] for batch in steps[at : at + 7]) for at in range(0, 70, 7)}) > 1
    assert {document for batch in steps for document in batch.slices["document"][:, 0].tolist()} == set(range(31))
    assert task.tokens_per_step == round(4 * (2 * 16 + 5 * 32) / 7)


@pytest.mark.parametrize(("limit", "counts"), [(None, {16: 30, 64: 10}), (8, {16: 6, 64: 2}), (100, {16: 30, 64: 10})])
def test_a_limit_takes_evenly_from_all_segments(limit: int | None, counts: dict):
    batches = evaluated(mix(), "test", limit)
    assert Counter(batch.inputs.shape[1] for batch in batches for _ in batch.inputs) == counts
    documents = [document for batch in batches for document in batch.slices["document"][:, 0].tolist()]
    assert len(set(documents)) == len(documents)
    assert all((batch.slices["length"] == batch.inputs.shape[1]).all() for batch in batches)


def test_what_is_scored_does_not_depend_on_how_many_sequences_come_at_a_time():
    whole = torch.cat([batch.targets for batch in evaluated(copying(), "validation", batch=40)])
    parts = torch.cat([batch.targets for batch in evaluated(copying(), "validation", batch=3)])
    assert torch.equal(whole, parts)
    assert np.array_equal(rows(evaluated(copying(), "test"))[::4], rows(evaluated(copying(), "test", limit=10)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"examples": 3}, "examples=3: fewer than the sequences of a step, batch=4"),
        ({"examples": 0}, "examples=0: must be a whole number of at least 1, or null: fresh examples at every step"),
        ({"held_out": 0}, "held_out=0: must be a whole number of at least 1"),
        ({"batch": 0}, "batch=0: must be a whole number of at least 1"),
        ({"seed": -1}, "seed=-1: must be a whole number of at least 0"),
        ({"multiples": []}, r"multiples=\[\]: at least one multiple of the length is needed, such as 1"),
        ({"multiples": [1, 0]}, "multiples=0: must be a whole number of at least 1"),
        ({"length": 7}, "length=7: must be even: a string and its copy"),
    ],
)
def test_bad_settings_are_refused(wrong: dict, message: str):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        copying(**wrong)
