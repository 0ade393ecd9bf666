"""Runs from the command line to the record and the report."""

import json

import pytest
import torch

from hybridlab.training.optimiser import AdamWCosine
from tests.records.reading import read_all


def test_a_run_leaves_its_record_and_prints_its_table(hybridlab, tiny, tmp_path):
    outcome = hybridlab("train", *tiny, "logger=none")
    assert (outcome.code, outcome.err) == (0, "")
    (record,) = read_all(tmp_path)
    directory = tmp_path / "runs" / "default" / record.run_id
    left = {path.name for path in directory.iterdir() if not path.name.startswith(".")}
    assert left == {"record.json", "report.md", "report.html", "config.yaml", "weights.safetensors"}
    assert record.status == "finished"
    assert [(layer["layer"], layer["group"], layer["mixer"]) for layer in record.plan] == [
        (0, "early", "gated_conv"),
        (1, "middle", "mamba2"),
        (2, "deep", "full"),
    ]
    assert all(layer["parameters"] > 0 and layer["flops"] > 0 and layer["state_bytes"] > 0 for layer in record.plan)
    assert {"python", "torch", "lightning", "hybridlab"} <= record.versions.keys()
    assert record.evaluation["window"] == record.evaluation["stride"] == 32
    assert record.evaluation["tokens"] == 128
    names = {row.name for row in record.measurements}
    for group in ("group/early", "group/middle", "group/deep", "mixer/gated_conv", "mixer/mamba2", "mixer/full"):
        assert {f"test/knockout/{group}/mixer", f"test/knockout/{group}/channel", f"flops/{group}"} <= names
        assert f"test/knockout/{group}/mixer/position/64-127" in names
    assert {f"test/ngram_bits_per_byte/context/{context}" for context in (1, 2, 3)} <= names
    for word in ("leak gate", "trained stack: no leak (", "gated_conv", "ablation", "bits per byte"):
        assert word in outcome.out


def test_training_learns_and_validates_to_the_last_step(hybridlab, tiny, tmp_path):
    assert hybridlab("train", *tiny, "logger=none", "trainer.max_steps=60", "evaluation.limit=32").code == 0
    (record,) = read_all(tmp_path)
    curve = {
        split: [row for row in record.measurements if row.name == f"{split}/nll"] for split in ("train", "validation")
    }
    assert [row.step for row in curve["validation"]] == [30, 60]
    assert [row.step for row in curve["train"]] == list(range(2, 61, 2))
    assert curve["train"][-1].value < curve["train"][0].value - 1
    assert curve["train"][-1].tokens == 60 * 64


def test_a_finished_run_is_skipped_and_another_seed_is_another_run(hybridlab, tiny, tmp_path):
    arguments = ["train", *tiny, "logger=none", "trainer.max_steps=2"]
    assert hybridlab(*arguments).code == 0
    (first,) = read_all(tmp_path)
    again = hybridlab(*arguments)
    assert (again.code, "finished already" in again.out) == (0, True)
    moved = hybridlab(*arguments, f"runs={tmp_path}/runs")
    assert (moved.code, "finished already" in moved.out) == (0, True)
    assert read_all(tmp_path) == [first]
    assert hybridlab(*arguments, "seed=1").code == 0
    assert len(read_all(tmp_path)) == 2


def test_two_spellings_of_a_stack_are_one_run(hybridlab, tiny, tmp_path):
    arguments = ["train", *tiny, "logger=none", "trainer.max_steps=1"]
    assert hybridlab(*arguments, "stack.groups.early.mixer=gated_conv").code == 0
    again = hybridlab(*arguments, "stack.groups.early.mixer=[gated_conv]", "mixers.gated_conv.conv_size=3")
    assert "finished already" in again.out


def test_a_run_that_fails_leaves_its_reason_and_is_tried_again(hybridlab, tiny, tmp_path, monkeypatch):
    from hybridlab.training import run

    def fails(*arguments):
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patched:
        patched.setattr(run, "measured", fails)
        outcome = hybridlab("train", *tiny, "logger=none")
    assert outcome.code == 1
    assert "failed: RuntimeError: out of luck" in outcome.err
    assert "Traceback" not in outcome.err
    (record,) = read_all(tmp_path)
    assert (record.status, record.reason) == ("failed", "RuntimeError: out of luck")
    assert "out of luck" in next(tmp_path.rglob("traceback.txt")).read_text()
    report = hybridlab("report", "runs/default")
    assert "out of luck" in report.out

    outcome = hybridlab("train", *tiny, "logger=none")
    assert outcome.code == 0
    assert "trained already" in outcome.out
    assert not list(tmp_path.rglob("traceback.txt"))
    assert [record.status for record in read_all(tmp_path)] == ["finished"]


def test_a_diverged_run_is_a_row_with_its_reason(hybridlab, tiny, tmp_path):
    outcome = hybridlab("train", *tiny, "logger=none", "optimizer.lr=1e30", "trainer.gradient_clip_val=null")
    assert outcome.code == 1
    (record,) = read_all(tmp_path)
    assert record.status == "diverged"
    assert "training loss is nan" in record.reason


def test_mixed_precision_trains_with_clipping(hybridlab, tiny, tmp_path):
    assert hybridlab("train", *tiny, "logger=none", "trainer.precision=bf16-mixed", "trainer.max_steps=2").code == 0
    (record,) = read_all(tmp_path)
    assert record.status == "finished"


def test_fast_dev_run_runs_everything_and_leaves_nothing(hybridlab, tiny, tmp_path):
    outcome = hybridlab("train", *tiny, "trainer.fast_dev_run=true")
    assert outcome.code == 0
    assert "nothing was recorded" in outcome.out
    assert list(tmp_path.iterdir()) == []


def test_lightnings_limit_of_validation_limits_the_batches(hybridlab, tiny, tmp_path):
    assert hybridlab("train", *tiny, "logger=none", "trainer.limit_val_batches=1").code == 0
    (record,) = read_all(tmp_path)
    assert [row.step for row in record.measurements if row.split == "validation"] == [5, 10]


def test_a_leak_stops_the_run_before_it_trains(hybridlab, tiny, tmp_path):
    (tmp_path / "mine" / "mixers").mkdir(parents=True)
    (tmp_path / "mine" / "mixers" / "planted.yaml").write_text("_target_: tests.evaluation.test_leak.BlockMeans\n")
    for command in ("train", "check"):
        outcome = hybridlab(
            command,
            *tiny,
            "hydra.searchpath=[file://mine]",
            "stack.groups.deep.mixer.name=planted",
            "~stack.groups.deep.mixer.heads",
        )
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
        assert "mixer `planted` (mixers.planted) sees the future: in a sequence of " in outcome.err
    assert not (tmp_path / "runs").exists()


def test_check_prints_what_it_tested(hybridlab, tiny):
    outcome = hybridlab("check", *tiny)
    assert outcome.code == 0
    assert "gated_conv: no leak" in outcome.out
    assert "whole stack: no leak" in outcome.out


def test_the_record_is_json(hybridlab, tiny, tmp_path):
    assert hybridlab("train", *tiny, "logger=none", "trainer.max_steps=1").code == 0
    content = json.loads(next(tmp_path.rglob("record.json")).read_text())
    assert content["config"]["task"]["length"] == 32
    assert content["config"]["stack"]["groups"]["middle"]["settings"]["mamba2"]["state"] == 8


def test_lightning_changes_the_rate_every_step_and_respects_the_tags(hybridlab, tiny, tmp_path, monkeypatch):
    from hybridlab.training import run

    monkeypatch.delattr(run, "measured")  # so that the run fails, and its checkpoint stays
    assert hybridlab("train", *tiny, "logger=none").code == 1
    saved = torch.load(next(tmp_path.rglob("*.ckpt")), weights_only=False)
    decayed, kept = saved["optimizer_states"][0]["param_groups"]
    assert saved["global_step"] == 10
    assert decayed["lr"] == pytest.approx(4e-3 * AdamWCosine(lr=4e-3).rate(10, 10))
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert (
        len(kept["params"]) == 12
    )  # seven norms of layers and stack, one of the mixer, its decays, steps, skips and bias


@pytest.mark.slow
def test_a_parallel_layer_trains_on_packed_sequences_and_its_parts_are_ablated_separately(hybridlab, tiny, tmp_path):
    parallel = "stack.groups.early.mixer={parallel:[full,{name:mamba2,head_width:16}],combine:gate}"
    outcome = hybridlab("train", *tiny, parallel, "task.packed=true", "task.length=300")
    assert outcome.code == 0, outcome.err
    assert "full in full+mamba2" in next(tmp_path.rglob("report.md")).read_text()  # the terminal wraps it
    (record,) = read_all(tmp_path / "runs")
    found = {(row.group, row.part) for row in record.measurements if row.grouping == "part"}
    assert found == {("full in full+mamba2", "mixer"), ("mamba2 in full+mamba2", "mixer")}
    assert record.plan[0]["settings"]["parts"]["mamba2"]["head_width"] == 16
