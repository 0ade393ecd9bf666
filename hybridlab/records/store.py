"""Run records on disk: a directory per run, with a `record.json`."""

from collections.abc import Iterable
from pathlib import Path

from hybridlab.errors import ConfigError
from hybridlab.records.atomic import write_text
from hybridlab.records.record import RunRecord

FILE = "record.json"


def write(record: RunRecord, directory: str | Path) -> Path:
    """Write a record into its run's directory, whole or not at all; return the file's path."""
    path = Path(directory) / FILE
    write_text(path, record.to_json())
    return path


def read(directory: str | Path) -> RunRecord:
    """Read the record in a run's directory."""
    path = Path(directory) / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: damaged, not UTF-8") from error
    return RunRecord.from_json(text, str(path))


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
