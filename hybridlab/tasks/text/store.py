"""A cache of derived data on disk: each folder is built once, completely or not at all, and found
by its key."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from hybridlab.errors import ConfigError
from hybridlab.tasks.cache import home as cache_home

MANIFEST = "manifest.json"


def stored(key: str, build: Callable[[Path], None]) -> Path:
    """Return the folder of `key`, filled by `build` if it is missing or damaged.

    It is in $HYBRIDLAB_CACHE, or else in ~/.cache/hybridlab. If several processes ask at once, one
    of them builds. A build that is killed leaves nothing under the key, and the next build removes
    its remains. A folder is damaged if a file's size or SHA-256 differs from when it was stored.
    """
    home = cache_home() / "corpora"
    folder = home / key
    if _is_complete(folder):
        return folder
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / f"{key}.lock"):
            if not _is_complete(folder):  # another process may have built it meanwhile
                _replace(folder, build)
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error}); $HYBRIDLAB_CACHE names another folder"
        raise ConfigError(f"{home}: {reason}") from error
    return folder


def _replace(folder: Path, build: Callable[[Path], None]) -> None:
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a build that was killed: this process holds the lock
    unfinished.mkdir()
    try:
        build(unfinished)
        facts = {file.name: _facts(file) for file in sorted(unfinished.iterdir())}
        (unfinished / MANIFEST).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _is_complete(folder: Path) -> bool:
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return facts == {name: _facts(folder / name) for name in facts}
    except (OSError, ValueError):
        return False


def _facts(file: Path) -> list[int | str]:
    with file.open("rb") as opened:
        return [file.stat().st_size, hashlib.file_digest(opened, "sha256").hexdigest()]
