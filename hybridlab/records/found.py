"""Runs as they are found: those that their launcher left in the middle are no longer running."""

from dataclasses import replace
from pathlib import Path

from hybridlab.records.archive import read_runs
from hybridlab.records.claim import has_living_owner
from hybridlab.records.record import RunRecord
from hybridlab.records.store import FILE, read

STOPPED = "its launcher is gone; the same command goes on from its last checkpoint"  # why a run is `stopped`


def read_found(path: str | Path) -> list[RunRecord]:
    """Read a folder of runs or an archive; a running record of a folder without a living owner is `stopped`."""
    records = read_runs(path)
    if not any(record.status == "running" for record in records) or Path(path).is_file():
        return records
    living = {file.parent.name for file in Path(path).rglob(FILE) if _may_be_at_work(file.parent)}
    stopped = {
        record.run_id
        for file in Path(path).rglob(FILE)
        if file.parent.name not in living and (record := read(file.parent)).status == "running"
    }
    return [_stopped(record) if record.run_id in stopped else record for record in records]


def _stopped(record: RunRecord) -> RunRecord:
    return replace(record, status="stopped", reason=record.reason or STOPPED)


def _may_be_at_work(directory: Path) -> bool:
    try:
        return has_living_owner(directory)
    except OSError:
        return True  # of a folder that is read-only it cannot be told: what the record says stands
