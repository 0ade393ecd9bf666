"""Where the numbers of a run come from: versions, commit, machine."""

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that may change a result."""
    libraries = ("hybridlab", "torch", "lightning", "hydra-core", "numpy", "wandb")
    return {"python": platform.python_version(), **{library: _version(library) for library in libraries}}


@cache
def commit() -> str | None:
    """Return the commit of the package's checkout, with `+changes` if it was edited, or None."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return f"{head}+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.CalledProcessError):
        return None


def hardware() -> dict[str, str | int]:
    """Return the machine, the number of CPU threads and the GPU."""
    import torch

    facts: dict[str, str | int] = {"machine": platform.machine(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _version(library: str) -> str:
    from hybridlab import __version__

    return __version__ if library == "hybridlab" else version(library)
