"""What decides how much a run trains in a second."""

import os
import platform
from pathlib import Path
from typing import Any

WORKERS = "HYBRIDLAB_WORKERS"  # the environment variable in which a launcher says how many jobs share this machine


def machine(config: dict[str, Any]) -> dict[str, Any]:
    """Return the devices, whether they have kernels, whether steps are compiled, and how many
    workers share the machine.

    Under a budget in seconds, these decide the results of a run with this resolved configuration.
    """
    from hybridlab.ops.kernels.dispatch import HAS_TRITON

    kind, count = devices_of(config["trainer"])
    device = device_name(kind, count)
    return {
        "device": device if kind == "cuda" else f"{device}, {_processor()}",
        "kernels": kind == "cuda" and HAS_TRITON,
        "compile": bool(config["compile"]),
        "workers": int(os.environ.get(WORKERS, "1")),
    }


def devices_of(trainer: dict[str, Any]) -> tuple[str, int]:
    """Return which kind of devices a Trainer with these settings uses, "cuda", "mps" or "cpu", and
    how many.
    """
    import torch

    accelerator = trainer.get("accelerator", "auto")
    gpus = torch.cuda.device_count()
    mps = accelerator == "mps" or (accelerator in ("gpu", "auto") and torch.backends.mps.is_available())
    cuda = not mps and (accelerator in ("gpu", "cuda") or (accelerator == "auto" and gpus > 0))
    devices = trainer.get("devices", "auto")
    if isinstance(devices, list):
        count = len(devices)
    elif str(devices) in ("auto", "-1"):
        count = max(1, gpus) if cuda else 1
    else:
        count = int(devices)
    nodes = trainer.get("num_nodes", 1)
    return "cuda" if cuda else "mps" if mps else "cpu", count * nodes


def device_name(kind: str, count: int) -> str:
    """Return the name of some devices, e.g. `2 x NVIDIA H200` or `CPU, 2 threads`."""
    import torch

    if kind == "cuda":
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "GPU"
    elif kind == "cpu":
        threads = torch.get_num_threads()
        name = f"CPU, {threads} thread{'s' * (threads != 1)}"
    else:
        name = kind.upper()
    return name if count == 1 else f"{count} x {name}"


def _processor() -> str:
    """Return the model of the CPU, where Linux tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
