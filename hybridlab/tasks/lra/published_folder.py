"""Folders of data as they were published, which the user has fetched."""

from pathlib import Path

from hybridlab.errors import ConfigError


def published_folder(path: str, *holds: str, what: str) -> Path:
    """Return the folder at `path`, if it holds all the named files and folders.

    Else refuse in one line; `what` says which folder of which archive is meant.
    """
    folder = Path(str(path)).expanduser()
    missing = next((name for name in holds if not (folder / name).exists()), None)
    if not folder.is_dir() or missing:
        found = f"has no {missing}" if folder.is_dir() else "no such folder"
        raise ConfigError(f"path={path}: {found}; needed is {what}, with {', '.join(holds)}")
    return folder
