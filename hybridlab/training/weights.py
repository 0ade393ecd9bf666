"""The final weights of a run, beside its record."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from hybridlab.errors import ConfigError
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand, in_normal_form
from hybridlab.stack.readout import Readout

FILE = "weights.safetensors"


def save_weights(stack: Stack, directory: Path, identity: str) -> str:
    """Write the weights into a run's directory, whole or not at all; return the file's SHA-256.

    The file carries the digest of the run's identity, and the stack's plan.
    """
    from safetensors.torch import save_model

    path = directory / FILE
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    try:
        save_model(stack, str(unfinished), metadata={**_about(stack), "identity": identity})
        digest = _digest(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return digest


def load_weights(stack: Stack, directory: Path, digest: str) -> Stack:
    """Fill a stack with the weights in a run's directory, in the dtype they were trained in; return
    it.

    Raise ConfigError if they are not those of the `digest` in the record.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, load_model

    path = _checked(directory, digest)
    try:
        stack.to(_dtype(load_file(path)))
        load_model(stack, str(path))
    except (SafetensorError, RuntimeError) as error:
        raise ConfigError(f"{path}: not the weights of this stack ({str(error).splitlines()[0]})") from error
    return stack


def load_stack(directory: Path, digest: str) -> Stack:
    """Return the trained stack of a run, from the file of its weights alone: no data are needed."""
    from safetensors import safe_open

    with safe_open(_checked(directory, digest), framework="pt") as opened:
        about = json.loads(opened.metadata()["stack"])
    plan = expand(about["plan"], {}, {}, causal=about["causal"])
    stack = Stack(plan, about["vocabulary"], readout=Readout(about["readout"]), classes=about["classes"])
    return load_weights(stack, directory, digest)


def _about(stack: Stack) -> dict[str, str]:
    """Return what a stack is built from, as the metadata of a file."""
    about = {
        "plan": {"width": stack.plan.width, **in_normal_form({}, stack.plan)},
        "causal": stack.plan.causal,
        "vocabulary": stack.embedding.num_embeddings,
        "readout": stack.readout.value,
        "classes": stack.classes,
    }
    return {"format": "pt", "stack": json.dumps(about)}


def _checked(directory: Path, digest: str) -> Path:
    """Return the path of the weights in a run's directory; require the `digest` of its record."""
    path = directory / FILE
    if not digest or not path.is_file():
        raise ConfigError(f"{path}: not kept (checkpoint.keep_weights=false), or gone; train the run again")
    if _digest(path) != digest:
        raise ConfigError(f"{path}: damaged, or of another run: not the weights that the record names")
    return path


def _dtype(weights: dict[str, Any]) -> Any:
    """Return the dtype of a stack's weights, that of its embedding."""
    return weights["embedding.weight"].dtype if "embedding.weight" in weights else weights["head.weight"].dtype


def _digest(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
