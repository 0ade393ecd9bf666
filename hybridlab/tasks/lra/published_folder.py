"""Folders of published data that the user has downloaded."""

from pathlib import Path

from hybridlab.errors import ConfigError


def published_folder(path: str, *holds: str, what: str) -> Path:
    """Return the folder at `path` if it holds all the named files and folders; raise a ConfigError
    otherwise.

    `what` names the folder and its archive in the message.
    """
    folder = Path(str(path)).expanduser()
    missing = next((name for name in holds if not (folder / name).exists()), None)
    if not folder.is_dir() or missing:
        found = f"has no {missing}" if folder.is_dir() else "no such folder"
        raise ConfigError(f"path={path}: {found}; needs {what}, with {', '.join(holds)}")
    return folder
