"""Each launcher runs a sweep side by side, prints failures and one report, and trains no run
twice."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.records.reading import read_all

ROOT = Path(__file__).parents[2]
SIDE_BY_SIDE = [
    pytest.param(["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], id="joblib"),
    pytest.param(["hydra/launcher=submitit_local"], id="submitit_local"),
]


def sweep(tiny, folder, *more):
    return [sys.executable, "-m", "hybridlab", "train", "-m", *tiny, "trainer.max_steps=4", f"runs={folder}", *more]


def run(command):
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", SIDE_BY_SIDE)
def test_a_sweep_side_by_side(launcher, tiny, tmp_path):
    """One job is a mistake, one diverges, one finishes: each is printed, and W&B has the two
    runs."""
    grid = ["optimizer.lr=-1,1e30,1e-3", "trainer.gradient_clip_val=null", "name=grid"]
    outcome = run(sweep(tiny, tmp_path, *launcher, *grid))
    assert outcome.returncode == 2
    records = {record.status: record for record in read_all(tmp_path)}
    assert sorted(records) == ["diverged", "finished"]
    assert outcome.stdout.count("report.html") == 1

    said = outcome.stderr + "".join(file.read_text() for file in tmp_path.rglob("*_log.err"))
    assert "`optimizer.lr=-1`: must be a number above 0" in said
    assert f"run {records['diverged'].run_id} diverged" in said
    assert "Traceback" not in said
    assert (tmp_path / "grid" / records["diverged"].run_id / "traceback.txt").exists()

    run_ids = {record.run_id for record in records.values()}
    assert set(json.loads((tmp_path / "grid" / "sweep.json").read_text())["runs"]) == run_ids
    assert {path.name.rpartition("-")[2] for path in (tmp_path / "grid" / "wandb").glob("offline-run-*")} == run_ids


@pytest.mark.slow
def test_two_launchers_share_a_folder_and_train_each_run_once(tiny, tmp_path):
    command = sweep(tiny, tmp_path, "logger=none", "seed=0,1,2")
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)]
    printed = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    trained = [run_id for text in printed for run_id in re.findall(r"run (\w+): plan", text)]
    assert sorted(trained) == sorted(record.run_id for record in read_all(tmp_path))
    assert len(trained) == 3


@pytest.mark.slow
def test_the_run_of_a_killed_launcher_resumes_from_its_checkpoint(hybridlab, tiny, tmp_path):
    more = ["logger=none", "seed=0,1", "trainer.max_steps=150", "checkpoint.every_n_train_steps=10"]
    with subprocess.Popen(sweep(tiny, tmp_path, *more), stdout=subprocess.DEVNULL, cwd=ROOT) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.rglob("*.ckpt")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert "running" in hybridlab("status", tmp_path).out
        process.kill()
    stopped = hybridlab("status", tmp_path).out
    assert re.search(r"1 +stopped", stopped)
    assert re.search(r"1 +waiting", stopped)
    outcome = run(sweep(tiny, tmp_path, *more))
    assert outcome.returncode == 0
    assert outcome.stdout.count("goes on from") == 1
    assert [record.status for record in read_all(tmp_path)] == ["finished", "finished"]


@pytest.mark.slow
def test_a_real_local_ray_cluster_runs_a_sweep(tiny, tmp_path):
    """Runs only if Ray is installed; the `test` extra does not include its 35 packages."""
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    launcher = ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.remote.num_cpus=1"]
    outcome = run(sweep(tiny, tmp_path, *launcher, "logger=none", "seed=0,1"))
    assert outcome.returncode == 0, outcome.stderr
    assert [record.status for record in read_all(tmp_path)] == ["finished", "finished"]
    assert outcome.stdout.count("report.html") == 1


@pytest.mark.slow
def test_a_sampler_draws_the_values_of_a_sweep(tiny, tmp_path):
    """Runs the documented command, only if Optuna is installed; the `test` extra does not
    include it."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    sampler = [
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=3",
        "hydra.sweeper.n_jobs=1",
        "hydra.sweeper.direction=minimize",
    ]
    drawn = ["hydra.sweeper.max_failure_rate=1.0", "optimizer.lr=tag(log, interval(1e-4, 1e-2))"]
    outcome = run(sweep(tiny, tmp_path, *sampler, *drawn, "logger=none"))
    assert outcome.returncode == 0, outcome.stderr
    rates = {record.config["optimizer"]["lr"] for record in read_all(tmp_path)}
    assert len(rates) == 3
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
