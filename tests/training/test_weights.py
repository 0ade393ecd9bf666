"""The final weights of a run lie beside its record, and give the trained stack."""

import pytest
import torch

import hybridlab as library
from hybridlab.errors import ConfigError
from hybridlab.training.spec import prepare
from tests.records.reading import read_all


@pytest.fixture
def trained(hybridlab, tiny, tmp_path):
    """A finished run of a second."""
    assert hybridlab("train", *tiny, "logger=none", "trainer.max_steps=3", "stack.match=params").code == 0
    (record,) = read_all(tmp_path / "runs")
    return library.open(tmp_path / "runs" / "default" / record.run_id)


def test_a_run_opens_as_the_trained_stack(trained, corpus, monkeypatch):
    stack = trained.stack()
    assert not stack.training
    assert stack.head.weight is stack.embedding.weight
    spec = prepare(trained.config)
    untrained = spec.build_stack()
    assert {name: value.shape for name, value in stack.state_dict().items()} == {
        name: value.shape for name, value in untrained.state_dict().items()
    }
    batches = list(spec.evaluation.batches(spec.task))
    measured = {row.name: row.value for row in trained.record.measurements}
    found = spec.evaluation.only(["nll"]).measure_on(batches, stack, spec.task, torch.device("cpu"))
    assert {row.name: row.value for row in found.measurements if row.name == "test/nll"} == {
        "test/nll": measured["test/nll"]
    }


def test_its_configuration_composes_to_the_same_run(trained):
    assert prepare(trained.config).run_id == trained.record.run_id
    assert trained.record.derived
    assert not set(trained.record.derived) & {
        key for key in trained.record.choices if trained.record.choices[key] == trained.record.derived.get(key)
    }
    again = library.train(trained.config)
    assert again.record.run_id == trained.record.run_id


@pytest.mark.parametrize("mistake", ["damaged", "gone"])
def test_weights_that_are_not_those_of_the_record_are_refused(trained, mistake):
    file = trained.folder / "weights.safetensors"
    if mistake == "gone":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"weights.safetensors: (damaged|not kept)"):
        trained.stack()


def test_a_sweep_that_needs_the_space_keeps_no_weights(hybridlab, tiny, tmp_path):
    arguments = ["train", *tiny, "logger=none", "trainer.max_steps=2", "checkpoint.keep_weights=false"]
    assert hybridlab(*arguments).code == 0
    assert not list(tmp_path.rglob("weights*"))
    assert not list(tmp_path.rglob("*.ckpt"))
    (record,) = read_all(tmp_path / "runs")
    assert (record.status, record.weights) == ("finished", "")
    further = hybridlab(*arguments, "evaluation=full")
    assert further.code == 2
    assert "weights.safetensors: not kept" in further.err
    assert hybridlab(*arguments, "checkpoint.keep_weights=maybe").code == 2
