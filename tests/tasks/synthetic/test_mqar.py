from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlab.errors import ConfigError
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.synthetic.mqar import MQAR


def mqar(**settings) -> MQAR:
    common: dict[str, Any] = {"seed": 0, "vocabulary": 64, "length": 32, "batch": 16, "pairs": 4, "held_out": 8}
    return MQAR(**common | settings)


@st.composite
def sizes(draw) -> dict:
    passes, pairs = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    length = 2 * pairs * (passes + 1) + 2 * draw(st.integers(0, 8))
    return {
        "length": length,
        "pairs": pairs,
        "passes": passes,
        "vocabulary": draw(st.integers(max(length, 2 * pairs + 2) + 1, 100)),
        "power_a": draw(st.sampled_from([0.01, 0.5, 1.0])),
        "random_non_queries": draw(st.booleans()),
    }


@given(sizes(), st.integers(0, 1000))
def test_a_sequence_is_pairs_and_queries_as_zoology_has_them(size: dict, step: int):
    batch = mqar(**size).train_batch(step)
    half, shown = size["vocabulary"] // 2, 2 * size["pairs"] * size["passes"]
    for row, targets, distance in zip(
        *(each.tolist() for each in (batch.inputs, batch.targets, batch.slices["distance"])), strict=True
    ):
        once = row[: 2 * size["pairs"]]
        assert row[:shown] == once * size["passes"]
        value_of = dict(zip(once[::2], once[1::2], strict=True))
        assert len(value_of) == len(set(value_of.values())) == size["pairs"]
        assert all(0 < key < half <= value for key, value in value_of.items())
        queries = [place for place, target in enumerate(targets) if target != IGNORED]
        assert all(place >= shown and place % 2 == 0 for place in queries)
        assert sorted(row[place] for place in queries) == sorted(value_of)
        for place in queries:
            assert targets[place] == value_of[row[place]]
            assert distance[place] == place - max(at for at in range(shown) if row[at] == row[place])
        filler = [row[place] for place in range(shown, len(row)) if place not in queries]
        assert size["random_non_queries"] or not any(filler)
    assert (batch.slices["pairs"] == size["pairs"]).all()


def test_queries_are_strewn_by_the_power_law():
    """The first key's slot is drawn first: its chances are the law itself."""
    task = mqar(batch=20000, vocabulary=256, length=40, pairs=2)
    batch = task.train_batch(0)
    at = ((batch.inputs == batch.inputs[:, :1]) & (batch.targets != IGNORED)).int().argmax(dim=1).numpy()
    slots = np.arange(1, 19)
    law = 0.01 * slots ** (0.01 - 1)
    shares = np.bincount((at - 4) // 2, minlength=18) / len(at)
    assert shares == pytest.approx(law / law.sum(), abs=0.015)


def test_filler_can_be_any_token():
    batch = mqar(batch=400, random_non_queries=True).train_batch(0)
    filler = batch.inputs[:, 8:][batch.targets[:, 8:] == IGNORED]
    assert set(filler.tolist()) == set(range(64))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"length": 31}, "length=31: must be even: keys and values come in pairs"),
        ({"pairs": 9}, "pairs=9: at most 8 fit in length=32, shown 1 times and asked for"),
        ({"pairs": 5, "passes": 3}, "pairs=5: at most 4 fit in length=32, shown 3 times and asked for"),
        ({"vocabulary": 32}, "vocabulary=32: must be a whole number of at least 33"),
        ({"power_a": 0.0}, "power_a=0.0: must be a number above 0"),
        ({"order": "publisht"}, "order=publisht: did you mean `published`?"),
        ({"pairs": None}, "pairs=null: must be a whole number of at least 1"),
        ({"training": []}, "training: goes with evaluation; a mix needs both, one segment neither"),
        ({"training": [], "evaluation": []}, "pairs=4: in a mix, each segment sets its own"),
    ],
)
def test_bad_settings_are_refused(wrong: dict, message: str):
    with pytest.raises(ConfigError) as caught:
        mqar(**wrong)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([], "training=[]: at least one segment is needed"),
        ([{"length": 8, "pairs": 1}], "training=examples: missing in {'length': 8, 'pairs': 1}"),
        ([{"length": 8, "pairs": 1, "examples": 9, "pears": 1}], "training=pears: did you mean `pairs`?"),
        ([{"length": 8, "pairs": 0, "examples": 9}], "training.pairs=0: must be a whole number of at least 1"),
        ([{"length": 8, "pairs": 1, "examples": 99}], "length=32: must be that of the longest training sequence, 8"),
    ],
)
def test_bad_mixes_are_refused(segments: list, message: str):
    evaluation = [{"length": 8, "pairs": 1, "examples": 9}]
    with pytest.raises(ConfigError) as caught:
        mqar(pairs=None, held_out=None, training=segments, evaluation=evaluation)
    assert str(caught.value) == message
