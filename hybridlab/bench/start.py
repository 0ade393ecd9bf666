"""The start-up time of a process."""

import statistics
import subprocess
import sys
import time

from rich.table import Table


def start_table() -> Table:
    """Time the import of hybridlab, without the start of Python itself, and `hybridlab --help`."""
    bare = _process_seconds(["-c", "pass"])
    table = Table(title="start-up time, s")
    for column in ("import hybridlab", "hybridlab --help, whole process"):
        table.add_column(column, justify="right")
    imported = _process_seconds(["-c", "import hybridlab"]) - bare
    table.add_row(f"{max(imported, 0):.3f}", f"{_process_seconds(['-m', 'hybridlab', '--help']):.3f}")
    return table


def _process_seconds(arguments: list[str]) -> float:
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
