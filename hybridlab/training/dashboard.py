"""The Weights & Biases run of a run: the numbers of the record, under the names of the record."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hybridlab.build import build
from hybridlab.records.record import RunRecord


@contextmanager
def dashboard(settings: dict[str, Any], record: RunRecord, folder: Path) -> Iterator[Any]:
    """Yield Lightning's logger of a run, and close it; None if the configuration names none.

    The runs of a sweep share one folder, project and group. The W&B run has the id of the record,
    so a resumed run appends to it.
    """
    if settings.get("_target_") is None:
        yield None
        return
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    wandb.setup()  # reads WANDB_SILENT; W&B would print a warning before it does so itself
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()  # an earlier run may have started W&B's process in another directory
    mixers = list(dict.fromkeys(layer["mixer"] for layer in record.plan))
    name = "-".join([*mixers, f"s{record.seed}", record.run_id[:6]])
    given = {"id": record.run_id, "name": name, "group": record.name, "save_dir": str(folder), "job_type": "train"}
    logger = build(settings, "logger", **given, tags=mixers, resume="allow", config=_config(record))
    exit_code = 1
    try:
        yield logger
        exit_code = 0
    finally:
        wandb.finish(exit_code=exit_code)


def publish(logger: Any, record: RunRecord) -> None:
    """Send a finished record: every measurement as summary, the layer-group table, the figures."""
    import wandb

    from hybridlab.report.figures.select import figures

    run = logger.experiment
    final = [row for row in record.measurements if row.step is None]
    run.summary.update({row.name: row.value for row in final})
    columns: list[Any] = ["name", "value", "unit", "low", "high", "interval", "n", "tokens"]
    by_group = [row for row in final if row.grouping != "stack" and not row.slice]
    table = wandb.Table(columns=columns, data=[[getattr(row, column) for column in columns] for row in by_group])
    images = {f"figures/{name}": wandb.Image(figure) for name, figure in figures(record).items()}
    run.log({"layer_groups": table, **images})


def _config(record: RunRecord) -> dict[str, Any]:
    """Return the resolved configuration; `derived` adds run id, layers, commit and versions."""
    derived = {
        "run_id": record.run_id,
        "layers": " ".join(layer["mixer"] for layer in record.plan),
        "commit": record.commit,
        "versions": record.versions,
    }
    return {**record.config, "derived": derived}
