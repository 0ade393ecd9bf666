"""The processes of a run on several devices: the first one keeps the record, the others follow.

A follower is started as `python -m hybridlab.training.follower` and reads its configuration from
standard input.
"""

import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from hybridlab.records.record import ENDED
from hybridlab.records.store import FILE, read
from hybridlab.training.curve import Curve
from hybridlab.training.divergence import DivergedError
from hybridlab.training.fit import fit
from hybridlab.training.spec import RunSpec


@contextmanager
def followers(spec: RunSpec, trainer: Any) -> Iterator[None]:
    """Start a process of this run for each further device of this machine.

    Stop them all at the end.

    Nothing is started for one device, by a process that is itself a follower, or where srun or
    torchrun started the processes. Lightning would repeat the command line of this process, which
    may be a whole sweep, a worker or a notebook.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment is None or environment.creates_processes_externally:
        yield
        return
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", str(_free_port()))
    os.environ.setdefault("NODE_RANK", "0")
    os.environ["LOCAL_RANK"] = "0"
    trainer.strategy._launcher = None  # Lightning's, which would start processes of its own
    processes: list[subprocess.Popen[str]] = []
    try:
        processes += (_start(spec, rank) for rank in range(1, trainer.num_devices))
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for process in processes:
            process.kill()  # no effect on one that has ended
            process.wait()


def follow(spec: RunSpec, trainer: Any, curve: Curve) -> None:
    """Take part in the training of a run whose record another process keeps.

    Return at once if the run has finished.
    """
    if (spec.directory / FILE).exists() and read(spec.directory).status in ENDED:
        return
    try:
        fit(spec, spec.build_stack(), trainer, curve)
    except DivergedError as error:  # the first process sees the same loss and reports it
        raise SystemExit(1) from error
    except Exception:
        spec.directory.mkdir(parents=True, exist_ok=True)
        name = f"traceback-of-process-{os.environ.get('LOCAL_RANK', '')}.txt"
        (spec.directory / name).write_text(traceback.format_exc(), encoding="utf-8")
        raise


def _start(spec: RunSpec, rank: int) -> "subprocess.Popen[str]":
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-m", "hybridlab.training.follower"],
        env={**os.environ, "LOCAL_RANK": str(rank), "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(OmegaConf.to_yaml(spec.declared))
    process.stdin.close()
    return process


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
