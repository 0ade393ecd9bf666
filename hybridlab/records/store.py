"""Run records on disk: one directory per run, `record.json` in it."""

from collections.abc import Iterable
from pathlib import Path

from hybridlab.errors import ConfigError
from hybridlab.records.atomic import write_text
from hybridlab.records.record import RunRecord

FILE = "record.json"


def write(record: RunRecord, directory: str | Path) -> Path:
    """Write the record into its run's directory, whole or not at all; return the file."""
    path = Path(directory) / FILE
    write_text(path, record.to_json())
    return path


def read(directory: str | Path) -> RunRecord:
    """Read the record of one run's directory."""
    path = Path(directory) / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: damaged, not UTF-8") from error
    return RunRecord.from_json(text, str(path))


def read_all(directory: str | Path) -> list[RunRecord]:
    """Read every record below `directory`, the first made first."""
    return first_made_first(read(folder) for folder in run_directories(directory))


def run_directories(directory: str | Path) -> list[Path]:
    """Return the directory of every run below `directory` that has a record."""
    directory = Path(directory)
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such directory")
    found = [path.parent for path in directory.rglob(FILE)]
    if not found:
        raise ConfigError(f"{directory}: no runs there (no {FILE} below it)")
    return found


def first_made_first(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the records in the order in which they were made."""
    return sorted(records, key=lambda record: (record.created, record.run_id))
