"""What happens when a sweep starts: its runs are written down, and the processor's cores are shared out."""

import os
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

from hybridlab.errors import ConfigError
from hybridlab.records.sweep import plan_runs


class PlanAtStart(Callback):
    """Writes the runs of a grid into the sweep's folder, and gives jobs that run side by side a part of the cores each."""

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """Compose every job of the grid; a sampler's trials (Optuna) are not known before they are drawn."""
        if config.hydra.job.name != "train" or not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
            return
        jobs = grid(config)
        share_cores(config.hydra.launcher, len(jobs))
        runs = run_ids(config, jobs)
        if runs:
            plan_runs(Path(config.runs) / config.name, runs)


def grid(config: Any) -> list[list[str]]:
    """Return the overrides of each job, as Hydra's own sweeper lays them out."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    of_file = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    (jobs,) = BasicSweeper.split_arguments(parser.parse_overrides([*of_file, *config.hydra.overrides.task]), None)
    return jobs


def run_ids(config: Any, jobs: list[list[str]]) -> dict[str, str]:
    """Return the id of each job's run, with the overrides that not all jobs share; a job with a mistake has none.

    A job that is refused says so itself when its turn comes.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from hybridlab.training.job import prepare

    loader = GlobalHydra.instance().config_loader()
    shared = set.intersection(*map(set, jobs))
    before = HydraConfig.instance().cfg
    found: dict[str, str] = {}
    try:
        for overrides in jobs:
            composed = loader.load_sweep_config(config, overrides)
            HydraConfig.instance().set_config(composed)
            own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
            try:
                found[prepare(own).run_id] = " ".join(word for word in overrides if word not in shared)
            except ConfigError:
                continue
    finally:
        HydraConfig.instance().cfg = before
    return found


def share_cores(launcher: Any, num_jobs: int) -> None:
    """Let each of the jobs that run at once on this machine take its share of the cores, unless the user has said how many.

    The variable is read when a worker process loads PyTorch; a cluster's launcher gives each job cores of its own.
    """
    target = launcher._target_
    if target.endswith(".JoblibLauncher"):
        at_once = num_jobs if launcher.n_jobs < 0 else min(launcher.n_jobs, num_jobs)
    elif target.endswith(".LocalLauncher"):  # submitit's starts all jobs together
        at_once = num_jobs
    else:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // min(at_once, cores))))
