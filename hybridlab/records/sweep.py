"""The planned runs of a sweep, on disk from its start, so that waiting runs are known."""

import json
from pathlib import Path

from hybridlab.errors import ConfigError
from hybridlab.records.atomic import write_text

SWEEP = "sweep.json"
LOCK = ".sweep.lock"


def plan_runs(folder: str | Path, runs: dict[str, str]) -> None:
    """Add runs to the plan in a sweep's folder: run id -> what distinguishes the run."""
    from filelock import FileLock

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):  # two launchers may start at once
            planned = {**planned_runs(folder), **runs}
            write_text(folder / SWEEP, json.dumps({"runs": planned}, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror})") from error


def planned_runs(folder: str | Path) -> dict[str, str]:
    """Return the runs planned in a sweep's folder; none if no sweep was started there."""
    path = Path(folder) / SWEEP
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: damaged, not the plan of a sweep") from error
    if not isinstance(runs, dict):
        raise ConfigError(f"{path}: damaged, not the plan of a sweep")
    return runs
