"""A run on several devices: a process for each, of which the first keeps the record and the others follow."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from hybridlab.errors import ConfigError, near_miss

STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "fsdp")


def strategy_for(name: Any) -> Any:
    """Return what `trainer.strategy` names, as Lightning's Trainer wants it; others would fork, or fail in mid-run."""
    if name not in STRATEGIES:
        raise ConfigError(f"`trainer.strategy={name}`: {near_miss(name, STRATEGIES)}")
    if name != "fsdp":
        return name
    from hybridlab.training.fsdp import ShardedStrategy  # slow to import

    return ShardedStrategy()


def check_batch(batch: int, trainer: Any) -> None:
    """Refuse a batch that does not divide: each device takes as many of its rows."""
    if batch % trainer.world_size:
        raise ConfigError(f"`task.batch={batch}`: must be a multiple of the number of devices, {trainer.world_size}")


@contextmanager
def followers(trainer: Any) -> Iterator[None]:
    """Start this job's command once more for each further device of this machine, and leave none of them behind.

    Nothing is started for one device, by a process that is itself a follower, or where srun or torchrun did it.
    Lightning would repeat the command line of the process, which may be a whole sweep or a worker's.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment is None or environment.creates_processes_externally:
        yield
        return
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", str(_free_port()))
    os.environ.setdefault("NODE_RANK", "0")
    os.environ["LOCAL_RANK"] = "0"
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    processes = [
        subprocess.Popen(_command(), env={**os.environ, "LOCAL_RANK": str(rank), "PYTHONPATH": path})
        for rank in range(1, trainer.num_devices)
    ]
    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for process in processes:
            process.kill()  # one that is done is not hurt
            process.wait()


def _command() -> list[str]:
    """Return the command line of this one job, whether a sweep composed it or a user."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    flags = [word for folder in folders for word in ("--config-dir", folder)]
    overrides = [*hydra.overrides.hydra, "hydra.mode=RUN", *hydra.overrides.task]
    return [sys.executable, "-m", "hybridlab", "train", *flags, *overrides]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
