"""Results that take long, kept on disk: each a JSON value, found by its key or computed again."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from hybridlab.errors import ConfigError
from hybridlab.records.atomic import write_text


def home() -> Path:
    """Return the folder of everything that is cached: $HYBRIDLAB_CACHE, or ~/.cache/hybridlab."""
    return Path(os.environ.get("HYBRIDLAB_CACHE") or "~/.cache/hybridlab").expanduser()


def look_up(kind: str, key: str) -> Any:
    """Return the value that was kept under a key; None if there is none, or if its file was
    damaged, cut or edited."""
    try:
        entry = json.loads(_file(kind, key).read_text(encoding="utf-8"))
        return entry["value"] if entry["seal"] == _seal(kind, key, entry["value"]) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def keep(kind: str, key: str, value: Any) -> None:
    """Write a JSON value, whole or not at all; a folder that cannot be written keeps nothing."""
    try:
        write_text(_file(kind, key), json.dumps({"value": value, "seal": _seal(kind, key, value)}))
    except ConfigError:
        return  # the value is right all the same, and will be computed again


def computed_once(kind: str, key: str, compute: Callable[[], Any]) -> Any:
    """Return the JSON value of a key; compute and keep it if it is missing.

    If several processes ask at once, one of them computes.
    """
    if (known := look_up(kind, key)) is not None:
        return known
    try:
        _file(kind, key).parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(_file(kind, key).with_suffix(".lock"))
        lock.acquire()
    except OSError:
        return compute()
    try:
        value = look_up(kind, key)
        if value is None:
            value = compute()
            keep(kind, key, value)
        return value
    finally:
        lock.release()


def digest_of(*parts: Any) -> str:
    """Return the SHA-256 of some JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _file(kind: str, key: str) -> Path:
    return home() / kind / f"{key}.json"


def _seal(kind: str, key: str, value: Any) -> str:
    return digest_of(kind, key, value)
