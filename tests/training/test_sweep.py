"""A multirun of Hydra's is a sweep: six runs, none trained twice, one table."""

import re

import pytest

from tests.records.reading import read_all

GRID = [
    "stack.groups.early.mixer=full,linear,mamba2",
    "mixers.full.heads=2",
    "mixers.linear.heads=2",
    "mixers.mamba2.head_width=16",
]


@pytest.mark.slow
def test_a_sweep_trains_each_run_once_and_ends_in_one_table(hybridlab, tiny, tmp_path):
    arguments = ["train", "-m", *tiny, "logger=none", "trainer.max_steps=4", *GRID, "seed=0,1", "name=placement"]
    first = hybridlab(*arguments)
    assert (first.code, first.err) == (0, "")
    records = read_all(tmp_path / "runs" / "placement")
    assert len(records) == 6
    assert {record.status for record in records} == {"finished"}
    for other in ("linear", "mamba2"):
        assert re.search(rf"early +full +{other} ", first.out)
    assert "paired by seed" in first.out

    second = hybridlab(*arguments)
    assert second.out.count("finished already") == 6
    assert read_all(tmp_path / "runs" / "placement") == records

    report = hybridlab("report", "runs/placement")
    assert report.code == 0
    assert re.search(r"early +full +mamba2 ", report.out)
    assert (tmp_path / "runs" / "placement" / "report.html").stat().st_size > 1000
    other_base = hybridlab("report", "runs/placement", "--base", "early=linear")
    assert re.search(r"early +linear +full ", other_base.out)


def test_a_failed_job_does_not_stop_the_others_and_is_a_row(hybridlab, tiny, tmp_path):
    outcome = hybridlab("train", "-m", *tiny, "logger=none", "trainer.gradient_clip_val=null", "optimizer.lr=1e30,1e-3")
    assert outcome.code == 1
    assert "diverged" in outcome.err
    assert sorted(record.status for record in read_all(tmp_path)) == ["diverged", "finished"]
    assert "diverged" in hybridlab("report", "runs/default").out
