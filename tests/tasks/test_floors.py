"""What a guess reaches on the tasks that state it."""

import math
from typing import ClassVar

import numpy as np
import pytest
from published_data import WRITERS

from hybridlab.build import build
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.guess import guess
from hybridlab.tasks.lra.image import LRAImage
from hybridlab.tasks.lra.listops import ListOps
from hybridlab.tasks.synthetic.copying import Copying
from hybridlab.tasks.synthetic.induction import Induction
from hybridlab.tasks.synthetic.memorization import Memorization
from hybridlab.tasks.synthetic.mqar import MQAR
from hybridlab.tasks.synthetic.passkey import Passkey
from hybridlab.tasks.synthetic.planted_recall import PlantedRecall

SIZES = {"seed": 0, "batch": 2, "held_out": 200}


def test_a_guess_knows_how_often_each_answer_occurs_and_no_more():
    accuracy, nll = guess(np.array([[3, 5, IGNORED, 7, 9], [4, 4, 4, 8, IGNORED]]))
    assert accuracy.tolist() == [0.25, 0.75]
    assert nll[0] == pytest.approx(math.log(4))
    assert nll[1] == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))


@pytest.mark.parametrize("pairs", [1, 4, 8])
def test_a_guess_at_mqar_names_a_value_of_the_sequence(pairs: int):
    task = MQAR(**SIZES, vocabulary=128, length=32, pairs=pairs)
    expected = {"accuracy": 1 / pairs, "example_accuracy": 1 / pairs, "nll": math.log(pairs)}
    assert task.floors == pytest.approx(expected)
    assert task.describe()["floors"] == task.floors


def test_a_mix_weighs_its_segments_as_the_measures_do():
    segments = [{"length": 16, "pairs": 2, "examples": 300}, {"length": 32, "pairs": 8, "examples": 100}]
    task = MQAR(seed=0, batch=2, vocabulary=64, length=32, training=segments, evaluation=segments)
    # 600 targets of two answers, 800 of eight
    assert task.floors["accuracy"] == pytest.approx((600 / 2 + 800 / 8) / 1400)
    assert task.floors["example_accuracy"] == pytest.approx((300 / 2 + 100 / 8) / 400)


def test_the_fall_of_a_guess_with_length_is_known():
    short, long = (MQAR(**SIZES, vocabulary=1024, length=16 * n, pairs=n) for n in (4, 16))
    assert short.floors["accuracy"] - long.floors["accuracy"] == pytest.approx(0.1875)


def test_answers_that_an_example_does_not_show_are_guessed_from_all():
    assert Memorization(**SIZES, vocabulary=33, length=8).floors["accuracy"] == pytest.approx(1 / 16)
    assert Passkey(**SIZES, length=128).floors["accuracy"] == pytest.approx(1 / 10)


def test_the_most_frequent_token_beats_an_even_guess():
    induction = Induction(**SIZES, vocabulary=5, length=64).floors
    assert 1 / 4 < induction["accuracy"] < 1 / 2
    assert math.log(4) * 0.9 < induction["nll"] < math.log(4)
    copying = Copying(**SIZES, vocabulary=5, length=64).floors
    assert 1 / 4 < copying["accuracy"] < 1 / 2


def test_no_guess_is_stated_where_none_is_known():
    task = PlantedRecall(**SIZES, length=512)
    assert task.floors == {}
    assert "floors" not in task.describe()


def test_a_guess_at_a_class_knows_how_often_it_occurs(tmp_path):
    task = LRAImage(seed=0, path=str(WRITERS["lra_image"](tmp_path / "data")))
    labels = task.labels("test")
    assert task.floors["accuracy"] == np.bincount(labels).max() / len(labels)
    assert 0.1 < ListOps(seed=0, length=32, min_length=4, max_depth=4, max_args=3).floors["accuracy"] < 0.3


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_classes_are_known_without_reading_the_examples(name: str, tmp_path):
    target = {
        "lra_image": "image.LRAImage",
        "lra_pathfinder": "pathfinder.LRAPathfinder",
        "lra_retrieval": "retrieval.LRARetrieval",
        "lra_text": "text.LRAText",
    }[name]
    settings = {"_target_": f"hybridlab.tasks.lra.{target}", "path": str(WRITERS[name](tmp_path / "data"))}
    task = build(settings, "task", seed=0)
    for split, examples in task.splits.items():
        assert task.labels(split).tolist() == [example.label for example in examples]


def test_a_class_of_the_users_may_state_its_floors():
    class Mine(Task):
        floors: ClassVar = {"accuracy": 0.5}

    assert Mine().describe() == {"floors": {"accuracy": 0.5}}
