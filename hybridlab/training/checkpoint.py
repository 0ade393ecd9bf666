"""Checkpoints: from which one a run goes on."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import lightning
import torch

from hybridlab.build import build
from hybridlab.errors import ConfigError
from hybridlab.training.console import say
from hybridlab.training.spec import RunSpec

IDENTITY = "hybridlab_identity"  # key of a checkpoint
FOLDER = "checkpoints"


def build_checkpoint(spec: RunSpec) -> Any:
    """Build Lightning's ModelCheckpoint, which writes into the run's folder."""
    settings = {key: value for key, value in spec.config["checkpoint"].items() if key != "keep_weights"}
    return build(settings, "checkpoint", dirpath=spec.directory / FOLDER)


def keeps_weights(spec: RunSpec) -> bool:
    """Return whether the final weights stay beside the record."""
    keep = spec.config["checkpoint"].get("keep_weights", True)
    if not isinstance(keep, bool):
        raise ConfigError(f"`checkpoint.keep_weights={keep}`: must be true or false")
    return keep


class CarriesIdentity(lightning.Callback):
    """Writes the digest of the run's identity into its checkpoints."""

    def __init__(self, digest: str) -> None:
        self.digest = digest

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the digest."""
        checkpoint[IDENTITY] = self.digest


def last_checkpoint(folder: Path, digest: str) -> Path | None:
    """Return the newest whole checkpoint in a folder that is of the run with this identity, or
    None.

    A file that a kill cut short is not a zip archive. One of another run is passed over, and said.
    """
    for file in sorted(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime, reverse=True):
        if not zipfile.is_zipfile(file):
            continue
        if _identity(file) == digest:
            return file
        say(f"{file}: not a checkpoint of this run; passed over")
    return None


def _identity(file: Path) -> str | None:
    """Return the identity that a checkpoint carries; its tensors stay on disk."""
    try:
        return torch.load(file, map_location="cpu", mmap=True, weights_only=False).get(IDENTITY)
    except (RuntimeError, ValueError, EOFError, AttributeError, ImportError, KeyError, pickle.UnpicklingError):
        return None
