"""A run on several devices gives the numbers of a run on one."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hybridlab.tasks.text.documents import Documents
from hybridlab.training.stream import BatchStream
from tests.records.reading import read_all
from tests.training.test_resume import numbers

ROOT = Path(__file__).parents[2]


RUN = ["task.length=600", "task.batch=4", "trainer.max_steps=6", "checkpoint.every_n_train_steps=4", "logger=none"]
# Both must have an effect: gradients with norms above 1 are clipped, and tagged weights do not
# decay.
FELT = ["trainer.gradient_clip_val=0.5", "optimizer.weight_decay=5"]
DEVICES = {
    "one": [],
    "ddp": ["trainer.strategy=ddp", "trainer.devices=2"],
    "fsdp": ["trainer.strategy=fsdp", "trainer.devices=2"],
}


# The command line, except that the checkpoints of a finished run stay.
KEEPING = """
import sys
from types import SimpleNamespace
from hybridlab.cli import main
from hybridlab.training import run
run.shutil = SimpleNamespace(rmtree=lambda *args, **settings: None)
main(sys.argv[1:])
"""


def train(folder, devices, *more, program=("-m", "hybridlab")):
    """Train on padded sequences, so that two processes hold different numbers of supervised
    tokens."""
    words = ["train", *more, *RUN, *FELT, f"runs={folder}", *DEVICES[devices]]
    outcome = subprocess.run([sys.executable, *program, *words], capture_output=True, text=True, cwd=ROOT)
    assert outcome.returncode == 0, outcome.stderr
    assert not list(folder.rglob("traceback*"))
    records = read_all(folder)
    assert {record.status for record in records} == {"finished"}
    return outcome.stdout, records


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["ddp", "fsdp"])
def test_two_processes_give_the_numbers_of_one(devices, tiny, tmp_path):
    runs = [train(tmp_path / each, each, "-m", *tiny, "seed=0,1") for each in ("one", devices)]
    for printed, _ in runs:
        assert printed.count(": plan") == 2
        assert printed.count("report.html") == 1
    for alone, together in zip(*(records for _, records in runs), strict=True):
        assert together.run_id == alone.run_id
        assert numbers(together) == pytest.approx(numbers(alone), rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("one", "fsdp"), ("fsdp", "one"), ("fsdp", "fsdp")])
def test_a_run_resumes_on_other_devices(before, after, tiny, tmp_path):
    _, (whole,) = train(tmp_path / "whole", before, *tiny, program=("-c", KEEPING))
    (checkpoints,) = tmp_path.glob("whole/*/*/checkpoints")
    shutil.copytree(checkpoints, tmp_path / "resumed" / checkpoints.relative_to(tmp_path / "whole"))
    printed, (resumed,) = train(tmp_path / "resumed", after, *tiny)
    assert "goes on from epoch=0-step=4.ckpt" in printed
    assert numbers(resumed) == pytest.approx(numbers(whole), rel=1e-4, abs=1e-5)


def test_the_processes_share_the_sequences_of_each_batch(corpus):
    task = Documents(seed=0, length=600, batch=4, path=str(corpus))
    whole = list(BatchStream(task, 3))
    shares = [list(BatchStream(task, 3, rank, ranks=2)) for rank in range(2)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert torch.equal(torch.stack([part.inputs for part in parts], dim=1).flatten(0, 1), batch.inputs)
        assert torch.equal(torch.stack([part.targets for part in parts], dim=1).flatten(0, 1), batch.targets)
        for name, values in batch.slices.items():
            assert torch.equal(torch.stack([part.slices[name] for part in parts], dim=1).flatten(0, 1), values)


def test_each_process_gets_the_documents_of_its_packed_sequences(corpus):
    task = Documents(seed=0, length=600, batch=4, path=str(corpus), packed=True)
    (whole,), (second,) = BatchStream(task, 1), BatchStream(task, 1, rank=1, ranks=2)
    assert torch.equal(second.documents, whole.documents[1::2])


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["ddp", "fsdp"])
def test_two_processes_accumulate_as_one(devices, tiny, tmp_path):
    runs = [train(tmp_path / each, each, *tiny, "trainer.accumulate_grad_batches=3") for each in ("one", devices)]
    (_, (alone,)), (_, (together,)) = runs
    assert together.run_id == alone.run_id
    assert numbers(together) == pytest.approx(numbers(alone), rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["ddp", "fsdp"])
def test_two_processes_end_a_run_of_seconds_at_one_step(devices, tiny, tmp_path):
    more = ["budget.seconds=3"]
    words = [word for word in RUN if not word.startswith("trainer.max_steps")]
    command = ["train", *tiny, *more, *words, f"runs={tmp_path}", *DEVICES[devices]]
    outcome = subprocess.run([sys.executable, "-m", "hybridlab", *command], capture_output=True, text=True, cwd=ROOT)
    assert outcome.returncode == 0, outcome.stderr
    (record,) = read_all(tmp_path)
    assert record.status == "finished"
    assert record.training["seconds"] >= 3
    assert record.identity["machine"]["device"].startswith("2 x CPU")


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["ddp", "fsdp"])
def test_two_processes_find_where_a_divergence_began(devices, tiny, tmp_path):
    more = ["optimizer.lr=1e30", "trainer.gradient_clip_val=null", f"runs={tmp_path}", *DEVICES[devices]]
    command = ["train", *tiny, *RUN, *more]
    outcome = subprocess.run([sys.executable, "-m", "hybridlab", *command], capture_output=True, text=True, cwd=ROOT)
    assert outcome.returncode == 1
    assert "Traceback" not in outcome.stderr
    assert not list(tmp_path.rglob("traceback-of-process-*"))
    (record,) = read_all(tmp_path)
    assert record.status == "diverged"
    assert re.search(r"at step \d: the (output of|weight|gradient of) `", record.reason), record.reason
