"""Write a file whole or not at all."""

import os
from pathlib import Path

from hybridlab.errors import ConfigError


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, with `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` and create its folder.

    A reader finds the old file or the new one, even after a power cut. A temporary file of
    `tempfile` would be readable only by its owner, and runs are shared.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error
