"""The table at the end of a sweep, once all its jobs are done."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

from hybridlab.records.store import FILE


class ReportAtEnd(Callback):
    """Prints the report of the sweep's folder and writes report.md and report.html beside the records."""

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        """Report on every run of the folder, those of earlier calls too; other commands than `train` leave none."""
        from hybridlab.report import print_and_write

        folder = Path(config.runs) / config.name
        if any(folder.glob(f"*/{FILE}")):
            print_and_write(folder)
