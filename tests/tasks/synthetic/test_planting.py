"""Strings planted in text, and the facts about them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.errors import ConfigError
from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.tasks.synthetic.passkey import Passkey
from hybridlab.tasks.synthetic.planted_recall import PlantedRecall
from hybridlab.tasks.text.documents import Documents

COMMON: dict[str, Any] = {"seed": 0, "batch": 6, "examples": None, "held_out": 12}


def passkey(folder: Path, **changes) -> Passkey:
    return Passkey(**COMMON | {"path": str(folder), "length": 128, "multiples": [1, 2, 8]} | changes)


def planted(folder: Path, **changes) -> PlantedRecall:
    return PlantedRecall(**COMMON | {"path": str(folder), "length": 96, "plants": 3, "multiples": [1, 3]} | changes)


def texts(folder: Path) -> dict[str, np.ndarray]:
    splits = Documents(path=str(folder), seed=0, length=16, batch=4).splits
    return {name: np.concatenate(list(split.texts(None))) for name, split in splits.items()}


def evaluated(task, split: str = "test") -> list[Batch]:
    return list(task.evaluation_batches(split, window=1, stride=1, limit=None, batch=5))


def rows(batch: Batch) -> list[tuple]:
    names = list(batch.slices)
    columns = (batch.inputs, batch.targets, *(batch.slices[name] for name in names))
    return [
        (row[0], row[1], dict(zip(names, row[2:], strict=True)))
        for row in zip(*(each.numpy() for each in columns), strict=True)
    ]


def is_cut_from(text: np.ndarray, row: np.ndarray, known: np.ndarray) -> bool:
    """Return whether the known bytes of a sequence occur in the text, which wraps around."""
    places = np.arange(len(row))[known]
    starts = np.arange(len(text))[:, None]
    return bool((text[(starts + places) % len(text)] == row[known]).all(axis=1).any())


def test_the_key_is_hidden_once_and_asked_for(folder: Path):
    task = passkey(folder)
    text = texts(folder)
    trained = [("training", batch) for batch in (task.train_batch(0), task.train_batch(1))]
    for split, batch in [*trained, *(("test", batch) for batch in evaluated(task))]:
        for inputs, targets, facts in rows(batch):
            key = bytes(targets[-5:].tolist())
            row = np.append(inputs[1:], targets[-1])
            whole = bytes(row.tolist())
            question = b" What is the pass key? The pass key is " + key
            needle = b" The pass key is " + key + b". Remember it. "
            assert inputs[0] == 256
            assert key.isdigit()
            assert whole.endswith(question)
            assert (targets[:-5] == IGNORED).all()
            haystack = whole.removesuffix(question)
            assert haystack.count(needle) == 1
            before, after = haystack.split(needle)
            left = np.frombuffer(before + after, dtype=np.uint8)
            assert is_cut_from(text[split], left, np.ones(len(left), dtype=bool))
            depth = facts["depth"][-1]
            assert depth / 10 * (len(left) + 1) - 1 < len(before) <= (depth + 1) / 10 * (len(left) + 1)
            at = len(whole) - np.arange(5, 0, -1)
            assert (row[at - facts["distance"][at]] == targets[-5:]).all()
            assert facts["relative_position"][-1] == {128: 0, 256: 1, 1024: 3}[len(whole)]


def test_every_depth_and_length_is_evaluated(folder: Path):
    batches = evaluated(passkey(folder, held_out=60))
    assert {batch.inputs.shape[1] for batch in batches} == {128, 256, 1024}
    assert set(torch.cat([batch.slices["depth"][:, -1] for batch in batches]).tolist()) == set(range(10))


def test_training_may_be_on_every_byte(folder: Path):
    every, alone = (passkey(folder, train_on=train_on).train_batch(0) for train_on in ("every", "key"))
    assert torch.equal(every.inputs, alone.inputs)
    assert torch.equal(every.targets[:, :-1], every.inputs[:, 1:])
    assert torch.equal(every.targets[:, -5:], alone.targets[:, -5:])


@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from([None, [5], [10, 40]]), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_a_string_comes_twice_at_its_distance(folder: Path, plants: int, cue: int, distances: list | None, seed: int):
    task = planted(folder, plants=plants, cue=cue, size=5, distances=distances, seed=seed)
    text = texts(folder)
    for split, batch in [("training", task.train_batch(0)), ("test", evaluated(task)[-1])]:
        for inputs, row, facts in rows(batch):
            assert (np.append(256, row[:-1]) == inputs).all()
            assert is_cut_from(text[split], row, facts["recall"] == 0)
            again = np.flatnonzero(facts["distance"] > 0)
            assert 5 <= len(again) <= 5 * plants
            assert (row[again - facts["distance"][again]] == row[again]).all()
            assert set(facts["distance"][again]) <= set(distances or [5 << power for power in range(6)])
            assert (facts["recall"] < 0).sum() + (facts["recall"] == 1).sum() == 2 * len(again)
            recalled = facts["recall"] == 1
            assert recalled.sum() == len(again) * (5 - cue) // 5
            assert (facts["recall_distance"] == np.where(recalled, facts["distance"], -1)).all()
            starts = again.reshape(-1, 5)
            assert (np.diff(starts) == 1).all()
            assert recalled[starts[:, cue:]].all()


def test_each_distance_that_fits_is_planted(folder: Path):
    distances = [
        set(batch.slices["distance"].unique().tolist()) - {-1} for batch in evaluated(planted(folder, held_out=80))
    ]
    assert set.union(*distances) == {8, 16, 32, 64, 128, 256}


@pytest.mark.parametrize(
    ("make", "wrong", "message"),
    [
        (
            passkey,
            {"length": 90},
            "length=90: must be at least 91, for the needle, the question, the key and some text",
        ),
        (passkey, {"digits": 0}, "digits=0: must be a whole number of at least 1"),
        (passkey, {"train_on": "keys"}, "train_on=keys: did you mean `key`?"),
        (passkey, {"path": "nowhere"}, "path=nowhere: no such file or folder"),
        (planted, {"size": 3}, "size=3: must be a whole number of at least 4"),
        (planted, {"plants": 4}, "plants=4: two strings of size=8 per plant must fill at most half of length=96"),
        (
            planted,
            {"distances": [16, 20]},
            "distances=[16, 20]: must be multiples of size=8, at most 88; not 20",
        ),
    ],
)
def test_bad_settings_are_refused(folder: Path, make, wrong: dict, message: str):
    with pytest.raises(ConfigError) as caught:
        make(folder, **wrong)
    assert str(caught.value) == message
