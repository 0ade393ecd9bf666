"""`hybridlab status`: how far the runs of a sweep are."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hybridlab.errors import ConfigError
from hybridlab.records.found import STOPPED, WAITING, state
from hybridlab.records.record import RunRecord
from hybridlab.records.store import FILE, read
from hybridlab.records.sweep import SWEEP, planned_runs

STATES = {
    "finished": "the same command skips it",
    "truncated": "it ended before its budget was spent; the same command skips it",
    "running": "a launcher is training it",
    "stopped": STOPPED,
    "failed": "the same command tries it again, `retries` times at most",
    "diverged": "its loss is no longer finite; it is not tried again",
    WAITING: "not started",
}


@dataclass(frozen=True)
class Run:
    """One run of a sweep, started or not."""

    run_id: str
    state: str  # a key of STATES
    choices: str  # the overrides that distinguish it from the other runs of its sweep
    record: RunRecord | None = None


def find_runs(directory: str | Path) -> list[Run]:
    """Return every run below a folder, also those that a sweep has planned and not started."""
    directory = Path(directory)
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such directory")
    planned = {path.parent: planned_runs(path.parent) for path in sorted(directory.rglob(SWEEP))}
    begun = {path.parent for path in directory.rglob(FILE)}
    waiting = {folder / run_id for folder, runs in planned.items() for run_id in runs} - begun
    if not begun | waiting:
        raise ConfigError(f"{directory}: no runs there (no {FILE} and no {SWEEP} below it)")
    runs = []
    for folder in sorted(begun | waiting):
        record = read(folder) if folder in begun else None
        choices = planned.get(folder.parent, {}).get(folder.name, "")
        runs.append(Run(folder.name, state(folder, record), choices, record))
    return runs


def seconds_left(runs: list[Run], now: datetime) -> float | None:
    """Estimate the time left from the mean of the finished runs and the number at work.

    None before one has finished.
    """
    done = [run.record.seconds for run in runs if run.state == "finished" and run.record is not None]
    if not done:
        return None
    mean = sum(done) / len(done)
    at_work = [run.record for run in runs if run.state == "running" and run.record is not None]
    left = mean * sum(run.state in (WAITING, "stopped") for run in runs)
    for record in at_work:
        left += max(0.0, mean - (now - datetime.fromisoformat(record.created)).total_seconds())
    return left / max(1, len(at_work))


def show_status(directory: str | Path) -> None:
    """Print how many runs are in which state, which of them did not go well and why, and the time
    left.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    runs = find_runs(directory)
    console = Console()
    counts = Table(box=box.SIMPLE_HEAD, title=str(directory), title_justify="left", show_edge=False)
    counts.add_column("runs", justify="right")
    counts.add_column("state")
    counts.add_column("")
    for name, meaning in STATES.items():
        if number := sum(run.state == name for run in runs):
            counts.add_row(str(number), name, Text(meaning, style="dim"))
    console.print(counts)
    troubled = [run for run in runs if run.state in ("stopped", "failed", "diverged")]
    if troubled:
        named = Table(box=box.SIMPLE_HEAD, show_edge=False)
        for title in ("run", "state", "choices", "reason"):
            named.add_column(title, overflow="fold")
        for run in troubled:
            reason = run.record.reason if run.record is not None else ""
            named.add_row(run.run_id, run.state, Text(run.choices), Text(reason))
        console.print()
        console.print(named)
    console.print()
    console.print(_time_left(runs))


def _time_left(runs: list[Run]) -> str:
    if not any(run.state in (WAITING, "running", "stopped") for run in runs):
        return "no run waits"
    left = seconds_left(runs, datetime.now(UTC))
    if left is None:
        return "time left: unknown until one run has finished"
    return f"time left: about {timedelta(seconds=round(left))}"
