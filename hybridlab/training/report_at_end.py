"""The table at the end of a sweep, once all its jobs are done."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

from hybridlab.records.store import FILE


class ReportAtEnd(Callback):
    """Prints the report of the sweep's folder and writes report.md and report.html beside the records."""

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        """Report on every run of the folder, those of earlier calls too; Hydra does not call this where a job failed."""
        report_sweep(Path(config.runs) / config.name)


def report_sweep(folder: Path) -> None:
    """Report on a sweep's folder, if there is a run in it: commands other than `train` leave none."""
    from hybridlab.report import print_and_write

    if any(folder.glob(f"*/{FILE}")):
        print_and_write(folder)
