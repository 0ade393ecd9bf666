"""Runs with their present state, which their records may not know."""

from dataclasses import replace
from pathlib import Path

from hybridlab.records.archive import read_archive
from hybridlab.records.claim import has_living_owner
from hybridlab.records.record import ENDED, RunRecord
from hybridlab.records.store import first_made_first, read, run_directories

WAITING = "waiting"  # the state of a run that has no record; every other state is a record's status
STOPPED = "its launcher is gone; the same command resumes from its last checkpoint"  # the reason of a `stopped` run


def read_found(path: str | Path) -> list[RunRecord]:
    """Read a folder of runs, each with its present state, or an archive; the first made first."""
    path = Path(path)
    if path.is_file():
        return read_archive(path)
    return first_made_first(_as_found(directory) for directory in run_directories(path))


def state(directory: str | Path, record: RunRecord | None) -> str:
    """Return the state of a run in its directory.

    A run with a living launcher is `running`, even if it failed before; a running one without is
    `stopped`. In a read-only folder this cannot be determined, and the record's status stands.
    """
    status = WAITING if record is None else record.status
    if status in ENDED:
        return status
    try:
        alive = has_living_owner(directory)
    except OSError:
        return status
    if alive:
        return "running"
    return "stopped" if status == "running" else status


def _as_found(directory: Path) -> RunRecord:
    record = read(directory)
    status = state(directory, record)
    reason = record.reason or (STOPPED if status == "stopped" else "")
    return replace(record, status=status, reason=reason)
