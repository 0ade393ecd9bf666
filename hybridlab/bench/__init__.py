"""`hybridlab bench`: the cost of the mixers, of a training step and of start-up on this machine."""

from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console

from hybridlab.bench.mixers import Setting, check_names, mixer_table
from hybridlab.bench.peers import installed, peer_table
from hybridlab.bench.start import start_table
from hybridlab.bench.step import step_table
from hybridlab.config import resolve
from hybridlab.training.allocator import keep_freed_memory
from hybridlab.training.spec import prepare

console = Console()


def bench(config: Any) -> None:
    """Print three tables: mixers compared with attention, the training step, and start-up."""
    spec = prepare(config)
    device = _device(spec.config)
    console.print(mixer_table(console, resolve(config)["mixers"], Setting.on(device)))
    console.print(step_table(spec, device))
    console.print(start_table())


def bench_mixers(config: Any, names: Sequence[str]) -> None:
    """Print the table of the named mixers, or of all.

    On a GPU, also compare their ops with flash-linear-attention.
    """
    check_names(names)
    plain = resolve(config)
    device = _device(plain)
    console.print(mixer_table(console, plain["mixers"], Setting.on(device), names))
    if device.type == "cuda" and installed():
        console.print(peer_table(console, Setting.on(device), names))


def _device(config: dict[str, Any]) -> torch.device:
    keep_freed_memory()
    device = torch.device("cuda" if config["trainer"].get("accelerator") == "gpu" else "cpu")
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    console.print(f"{hardware}, torch {torch.__version__}")
    return device
