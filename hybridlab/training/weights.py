"""The final weights of a run, beside its record."""

import hashlib
import json
import os
from pathlib import Path

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
    return _filled(stack, _checked(directory, digest))


def load_stack(directory: Path, digest: str) -> Stack:
    """Return the trained stack of a run, from the file of its weights alone: no data are needed."""
    from safetensors import safe_open

    path = _checked(directory, digest)
    with safe_open(path, framework="pt") as opened:
        about = json.loads(opened.metadata()["stack"])
    plan = expand(about["plan"], {}, {}, causal=about["causal"])
    stack = Stack(plan, about["vocabulary"], readout=Readout(about["readout"]), classes=about["classes"])
    return _filled(stack, path)


def _filled(stack: Stack, path: Path) -> Stack:
    """Return the stack with the weights of a file, in the dtype of its embedding or head there."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_model

    try:
        with safe_open(path, framework="pt") as opened:
            names = list(opened.keys())  # of weights that are tied, one is kept
            name = next(each for each in ("embedding.weight", "head.weight") if each in names)
            stack.to(opened.get_tensor(name).dtype)
        load_model(stack, str(path))
    except (SafetensorError, RuntimeError) as error:
        raise ConfigError(f"{path}: not the weights of this stack ({str(error).splitlines()[0]})") from error
    return stack


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


def _digest(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
