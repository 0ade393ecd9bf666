"""The start and the end of a sweep: its runs are listed, cores are shared, the table is printed."""

import os
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

from hybridlab.errors import ConfigError
from hybridlab.records.store import FILE
from hybridlab.records.sweep import plan_runs
from hybridlab.training.machine import WORKERS


class PlanAtStart(Callback):
    """Lists the runs of a grid in the sweep's folder; shares the cores between parallel jobs."""

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """Compose every job of a grid.

        A sampler's trials (Optuna) are unknown until they are drawn.
        """
        if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
            return
        jobs = grid(config)
        share_machine(config.hydra.launcher, len(jobs))
        if config.hydra.job.name != "train":
            return
        runs = run_ids(config, jobs)
        if runs:
            plan_runs(Path(config.runs) / config.name, runs)


class ReportAtEnd(Callback):
    """Prints the report of the sweep's folder, and writes it there."""

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        """Report on every run of the folder, earlier ones included.

        Hydra does not call this if a job failed.
        """
        report_sweep(Path(config.runs) / config.name)


def report_sweep(folder: Path) -> None:
    """Report on a sweep's folder if it holds a run; commands other than `train` leave none."""
    from hybridlab.report import print_and_write

    if any(folder.glob(f"*/{FILE}")):
        print_and_write(folder)


def grid(config: Any) -> list[list[str]]:
    """Return the overrides of each job, in the order of Hydra's own sweeper."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    of_file = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    (jobs,) = BasicSweeper.split_arguments(parser.parse_overrides([*of_file, *config.hydra.overrides.task]), None)
    return jobs


def run_ids(config: Any, jobs: list[list[str]]) -> dict[str, str]:
    """Return the id of each job's run, with the overrides that the jobs do not share.

    A job with a mistake is left out; it prints its own error when it runs.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    from hybridlab.config import without_hydra
    from hybridlab.training.spec import prepare

    loader = GlobalHydra.instance().config_loader()
    shared = set.intersection(*map(set, jobs))
    before = HydraConfig.instance().cfg
    found: dict[str, str] = {}
    try:
        for overrides in jobs:
            composed = loader.load_sweep_config(config, overrides)
            HydraConfig.instance().set_config(composed)
            try:
                spec = prepare(without_hydra(composed))
            except ConfigError:
                continue
            found[spec.run_id] = " ".join(word for word in overrides if word not in shared)
    finally:
        HydraConfig.instance().cfg = before
    return found


def share_machine(launcher: Any, num_jobs: int) -> None:
    """Put the number of parallel jobs into the environment, and share the cores equally among them
    unless OMP_NUM_THREADS is set.

    A worker process inherits the environment, and PyTorch reads the variable when it is loaded. A
    cluster's launcher gives each job its own cores.
    """
    target = launcher._target_
    os.environ.pop(WORKERS, None)
    if target.endswith(".JoblibLauncher"):
        at_once = num_jobs if launcher.n_jobs < 0 else min(launcher.n_jobs, num_jobs)
    elif target.endswith(".LocalLauncher"):  # submitit's starts all jobs together
        at_once = num_jobs
    else:
        return
    os.environ[WORKERS] = str(at_once)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // min(at_once, cores))))
