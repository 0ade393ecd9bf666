"""A run on several devices is the run on one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hybridlab.records.store import read_all
from hybridlab.tasks.documents import Documents
from hybridlab.training.stream import BatchStream
from tests.training.test_resume import numbers

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_give_one_processs_numbers(tiny, tmp_path):
    """In a sweep, on rows of which some are padded: the two processes then hold different numbers of supervised tokens."""
    grid = ["seed=0,1", "task.length=600", "task.batch=4", "trainer.max_steps=6", "logger=none"]
    devices = {"one": [], "two": ["trainer.strategy=ddp", "trainer.devices=2"]}
    for name, overrides in devices.items():
        command = [
            sys.executable,
            "-m",
            "hybridlab",
            "train",
            "-m",
            *tiny,
            *grid,
            f"runs={tmp_path}/{name}",
            *overrides,
        ]
        outcome = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert outcome.returncode == 0, outcome.stderr
        assert outcome.stdout.count(": plan") == 2
        assert outcome.stdout.count("report.html") == 1
    one, two = read_all(tmp_path / "one"), read_all(tmp_path / "two")
    assert [record.run_id for record in two] == [record.run_id for record in one]
    for alone, together in zip(one, two, strict=True):
        assert together.status == "finished"
        assert numbers(together) == pytest.approx(numbers(alone), rel=1e-4, abs=1e-5)
    assert not list(tmp_path.rglob("traceback*"))


def test_the_processes_share_out_the_rows_of_each_batch(corpus):
    task = Documents(seed=0, length=600, batch=4, path=str(corpus))
    whole = list(BatchStream(task, 3))
    shares = [list(BatchStream(task, 3, rank, ranks=2)) for rank in range(2)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert torch.equal(torch.stack([part.inputs for part in parts], dim=1).flatten(0, 1), batch.inputs)
        assert torch.equal(torch.stack([part.targets for part in parts], dim=1).flatten(0, 1), batch.targets)
        for name, values in batch.slices.items():
            assert torch.equal(torch.stack([part.slices[name] for part in parts], dim=1).flatten(0, 1), values)


def test_each_process_of_packed_rows_knows_its_documents(corpus):
    task = Documents(seed=0, length=600, batch=4, path=str(corpus), packed=True)
    (whole,), (second,) = BatchStream(task, 1), BatchStream(task, 1, rank=1, ranks=2)
    assert torch.equal(second.documents, whole.documents[1::2])
