"""A failed run is tried again at most `retries` times; a run that diverged is not."""

import pytest
import torch

from tests.records.reading import read_all


@pytest.fixture
def failing(monkeypatch):
    """Make every run fail at its evaluation with a given error."""
    from hybridlab.training import run

    def fail_by(error):
        def fails(*arguments):
            raise error

        monkeypatch.setattr(run, "measured", fails)

    return fail_by


@pytest.mark.slow
def test_a_failed_run_is_tried_again_until_its_retries_are_used_up(hybridlab, tiny, tmp_path, failing):
    failing(RuntimeError("out of luck"))
    command = ["train", *tiny, "logger=none", "trainer.max_steps=1"]
    for failures in (1, 2):
        assert hybridlab(*command, "retries=1").code == 1
        (record,) = read_all(tmp_path)
        assert (record.status, record.failures) == ("failed", failures)
    given_up = hybridlab(*command, "retries=1")
    assert given_up.code == 1
    assert "failed 2 times, the last time by RuntimeError: out of luck; not tried again (retries=1)" in given_up.err
    assert "Traceback" not in given_up.err
    assert "plan" not in given_up.out
    assert read_all(tmp_path) == [record]
    assert hybridlab(*command, "retries=2").code == 1
    assert read_all(tmp_path)[0].failures == 3


def test_a_diverged_run_is_not_tried_again_and_still_fails_the_command(hybridlab, tiny, tmp_path):
    command = ["train", *tiny, "logger=none", "optimizer.lr=1e30", "trainer.gradient_clip_val=null"]
    assert hybridlab(*command).code == 1
    records = read_all(tmp_path)
    again = hybridlab(*command)
    assert again.code == 1
    assert "diverged before: DivergedError: the training loss is nan" in again.err
    assert read_all(tmp_path) == records


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["python", "gpu", "cpu"],
)
def test_running_out_of_memory_is_recorded_as_such(hybridlab, tiny, tmp_path, failing, error):
    failing(error)
    assert hybridlab("train", *tiny, "logger=none", "trainer.max_steps=1").code == 1
    (record,) = read_all(tmp_path)
    assert record.status == "failed"
    assert record.reason.startswith(f"out of memory ({type(error).__name__}")


def test_retries_are_not_part_of_the_run_id(hybridlab, tiny, tmp_path):
    command = ["train", *tiny, "logger=none", "trainer.max_steps=1"]
    assert hybridlab(*command).code == 0
    assert "finished already" in hybridlab(*command, "retries=0").out
