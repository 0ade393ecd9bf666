"""A killed run resumes from its last checkpoint and ends with the numbers of an uninterrupted
one."""

import signal
import subprocess
import sys
import time

import pytest

from tests.records.reading import read_all

STEPS = 150


def command(tiny, *more):
    arguments = [*tiny, f"trainer.max_steps={STEPS}", "logger=none", "checkpoint.every_n_train_steps=10", *more]
    return [sys.executable, "-m", "hybridlab", "train", *arguments]


@pytest.mark.slow
def test_a_killed_run_ends_with_the_numbers_of_an_uninterrupted_one(tiny, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with subprocess.Popen(command(tiny, f"runs={killed}"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        deadline = time.monotonic() + 120
        while not (checkpoints := list(killed.rglob("*.ckpt"))) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert checkpoints
    assert [record.status for record in read_all(killed)] == ["running"]

    resumed = subprocess.run(command(tiny, f"runs={killed}"), check=True, capture_output=True, text=True)
    assert "goes on from" in resumed.stdout
    subprocess.run(command(tiny, f"runs={whole}"), check=True, capture_output=True)

    (first,), (second,) = read_all(killed), read_all(whole)
    assert first.status == second.status == "finished"
    assert numbers(first) == numbers(second)
    assert len([row for row in first.measurements if row.name == "train/nll"]) == STEPS // 2


def numbers(record):
    """Return all numbers of a record, except times and memory."""
    measured = ("milliseconds", "tokens_per_second", "peak_memory_bytes")
    return {(row.name, row.step): row.value for row in record.measurements if row.measure not in measured}
