"""Tasks that are predicted from whole sequences, from the command line to the record."""

import pytest

from tests.conftest import CONF
from tests.records.reading import read_all
from tests.tasks.published_data import WRITERS

TINY = ["--config-dir", str(CONF), "stack=tiny", "trainer=tiny", "logger=none"]


@pytest.mark.slow
def test_an_encoder_learns_listops_and_is_measured(hybridlab, tmp_path):
    shape = ["task=listops_small", "task.length=32", "task.min_length=4", "task.batch=32"]
    outcome = hybridlab("train", *TINY, *shape, "trainer.max_steps=40", "evaluation.limit=64")
    assert (outcome.code, outcome.err) == (0, "")
    assert "leak gate: not needed" in outcome.out
    (record,) = read_all(tmp_path)
    assert record.status == "finished"
    curve = [row for row in record.measurements if row.step is not None]
    first, last = curve[0].value, [row.value for row in curve if row.split == "validation"][-1]
    assert last < first - 0.1
    measured = {row.name: row for row in record.measurements if row.step is None}
    assert measured["test/accuracy"].n == measured["test/nll"].n == 64
    assert 0 < measured["test/accuracy"].value <= 1
    assert "test/knockout/group/deep/mixer" in measured


@pytest.mark.parametrize("task", WRITERS)
def test_every_published_format_trains(hybridlab, tmp_path, task):
    path = WRITERS[task](tmp_path / "data")
    shape = [f"task={task}", f"task.path={path}", "task.length=60", "task.batch=4"]
    outcome = hybridlab("train", *TINY, *shape, "trainer.fast_dev_run=true")
    assert (outcome.code, outcome.err) == (0, "")


def test_a_pair_is_measured_in_full(hybridlab, tmp_path):
    path = WRITERS["lra_retrieval"](tmp_path / "data")
    shape = ["task=lra_retrieval", f"task.path={path}", "task.length=60", "task.batch=4", "trainer.max_steps=2"]
    outcome = hybridlab("train", *TINY, *shape, "evaluation=full", "evaluation.limit=6")
    assert (outcome.code, outcome.err) == (0, "")
    (record,) = read_all(tmp_path)
    names = {row.name for row in record.measurements}
    assert {"test/accuracy", "test/lens/group/early", "test/knockout/group/deep/mixer"} <= names


@pytest.mark.slow
def test_compression_trains_and_is_measured_in_full(hybridlab, tmp_path):
    shape = ["task=mad_compression", "task.length=40", "task.batch=16", "trainer.max_steps=4"]
    outcome = hybridlab("train", *TINY, *shape, "evaluation=full", "evaluation.limit=32")
    assert (outcome.code, outcome.err) == (0, "")
    assert "leak gate: whole stack: no leak" in outcome.out
    (record,) = read_all(tmp_path)
    measured = {row.name: row for row in record.measurements if row.step is None}
    assert (measured["test/nll"].n, measured["test/nll"].tokens) == (32, 32 * 40)
    wanted = {"accuracy", "lens", "tuned_lens", "knockout", "mean_knockout", "reach", "interaction"}
    assert wanted | {"memory_tokens", "attention_distance", "block_influence"} <= {
        row.measure for row in measured.values()
    }


def test_missing_data_is_refused_in_one_line(hybridlab):
    outcome = hybridlab("train", "task=lra_text", "task.path=nowhere")
    assert outcome.code == 2
    assert outcome.err.startswith("hybridlab: `task.path=nowhere`: no such folder; needs the folder aclImdb of ")
    assert outcome.err.count("\n") == 1
