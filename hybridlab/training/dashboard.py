"""What a Weights & Biases run gets: the record's numbers, under the record's names."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hybridlab.build import build
from hybridlab.records.record import RunRecord


@contextmanager
def dashboard(settings: dict[str, Any], record: RunRecord, folder: Path) -> Iterator[Any]:
    """Give Lightning's logger for a run, or None when the configuration names none; close it whatever happens.

    All runs of a sweep share one folder, project and group; the run's id is the record's, so that a resumed run appends.
    """
    if settings.get("_target_") is None:
        yield None
        return
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    wandb.setup()  # reads the line above now: W&B's first warning comes before its own set-up
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()  # W&B's own process may have been started, by an earlier run, from another directory
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
    """Send a finished record: every measurement to the summary, the layer-group table, the figures."""
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
    """Return the resolved configuration with the facts derived from it."""
    derived = {
        "run_id": record.run_id,
        "layers": " ".join(layer["mixer"] for layer in record.plan),
        "commit": record.commit,
        "versions": record.versions,
    }
    return {**record.config, "derived": derived}
