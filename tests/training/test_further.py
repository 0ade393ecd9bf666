"""Finished runs are measured further, without training."""

import pytest

import hybridlab as library
from tests.records.reading import read_all

FAST = ["logger=none", "trainer.max_steps=3"]


def numbers(record, key):
    return {row.name: row.value for row in record.measurements if row.evaluation == key}


def test_evaluating_adds_what_is_missing_and_keeps_the_rest(hybridlab, tiny, tmp_path, monkeypatch):
    assert hybridlab("train", *tiny, *FAST, "evaluation/measures=[]").code == 0
    (before,) = read_all(tmp_path / "runs")
    (quick,) = before.evaluations
    monkeypatch.delattr("hybridlab.training.run.fit")
    chosen = ["logger=none", "evaluation=quick", "evaluation.limit=128"]
    outcome = hybridlab("evaluate", "runs/default", *chosen)
    assert outcome.code == 0, outcome.err
    (after,) = read_all(tmp_path / "runs")
    assert list(after.evaluations) == [quick]  # the same settings: one evaluation
    assert after.measurements[: len(before.measurements)] == before.measurements
    assert {row.measure for row in after.measurements[len(before.measurements) :]} == {"knockout", "lens"}
    assert set(after.evaluations[quick]["measures"]) == {"nll", "bits_per_byte", "perplexity", "knockout", "lens"}

    outcome = hybridlab("evaluate", "runs/default", *chosen)
    assert (outcome.code, "skipped" in outcome.out) == (0, True)
    assert read_all(tmp_path / "runs") == [after]

    outcome = hybridlab("evaluate", "runs/default", "logger=none", "evaluation=quick", "evaluation.limit=64")
    assert outcome.code == 0, outcome.err
    (third,) = read_all(tmp_path / "runs")
    first, second = third.evaluations
    assert (first, third.evaluations[second]["limit"]) == (quick, 64)
    assert numbers(third, first) == numbers(after, first)
    assert numbers(third, second).keys() >= {"test/nll", "test/knockout/group/early/mixer"}
    assert numbers(third, second)["test/nll"] != numbers(third, first)["test/nll"]


def test_the_same_command_with_more_measures_measures_them(hybridlab, tiny, tmp_path, monkeypatch):
    assert hybridlab("train", *tiny, *FAST, "evaluation/measures=[]").code == 0
    monkeypatch.delattr("hybridlab.training.run.fit")
    outcome = hybridlab("train", *tiny, *FAST)
    assert outcome.code == 0, outcome.err
    assert "finished already" in outcome.out
    assert "measuring knockout, lens" in outcome.out
    (record,) = read_all(tmp_path / "runs")
    assert len(record.evaluations) == 1
    assert "test/knockout/group/early/mixer" in {row.name for row in record.measurements}


@pytest.mark.slow
def test_a_whole_sweep_is_evaluated(hybridlab, tiny, tmp_path):
    given = ["train", "-m", *tiny, *FAST, "evaluation/measures=[]", "seed=0,1"]
    assert hybridlab(*given).code == 0
    outcome = hybridlab("evaluate", "runs/default", "logger=none", "evaluation.limit=128")
    assert outcome.code == 0, outcome.err
    records = read_all(tmp_path / "runs")
    assert len(records) == 2
    for record in records:
        assert "test/lens/group/early" in {row.name for row in record.measurements}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_what_cannot_be_evaluated_is_refused(hybridlab, tiny, corpus, tmp_path):
    assert hybridlab("evaluate").code == 2
    assert hybridlab("evaluate", "nowhere").err == "hybridlab: nowhere: no such directory\n"
    assert hybridlab("train", *tiny, *FAST).code == 0
    (record,) = read_all(tmp_path / "runs")
    folder = f"runs/default/{record.run_id}"
    text = corpus / "0.txt"
    text.write_text(text.read_text() + "x")
    outcome = hybridlab("evaluate", folder, "evaluation=full", "logger=none")
    assert outcome.code == 2
    assert "the data of `task` changed since it was trained" in outcome.err
    assert outcome.err.count("\n") == 1


def test_python_evaluates_too(hybridlab, tiny, tmp_path):
    assert hybridlab("train", *tiny, *FAST, "evaluation/measures=[]").code == 0
    (record,) = read_all(tmp_path / "runs")
    run = library.open(tmp_path / "runs" / "default" / record.run_id)
    again = run.evaluate(["evaluation=quick", "evaluation.limit=32", "logger=none"])
    assert len(again.record.evaluations) == 2
    assert "test/lens/group/deep" in {row.name for row in again.record.measurements}
