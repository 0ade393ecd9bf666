"""The Weights & Biases run of a run: the numbers of the record, under the names of the record.

The runs of a sweep share one folder, project and group. The W&B run has the id of the record, so a
resumed run appends to it.
"""

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybridlab.errors import ConfigError, near_miss
from hybridlab.records.record import RunRecord


def is_wandb(target: Any) -> bool:
    """Return whether a class is Lightning's logger for W&B."""
    return any(base.__name__ == "WandbLogger" for base in getattr(target, "__mro__", ()))


def check(settings: Mapping[str, Any], where: str) -> None:
    """Refuse settings that neither Lightning's logger nor `wandb.init` has."""
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    own, more = (inspect.signature(each).parameters for each in (WandbLogger, wandb.init))
    for key, value in settings.items():
        if key != "_target_" and key not in own and key not in more:
            raise ConfigError(
                f"`{where}.{key}={value}`: WandbLogger has no such setting; {near_miss(key, {*own, *more})}"
            )


def given(record: RunRecord | None, folder: Path) -> dict[str, Any]:
    """Return what the logger is given, by the record of its run and the folder of the sweep."""
    if record is None:
        return {}
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    wandb.setup()  # reads WANDB_SILENT; W&B would print a warning before it does so itself
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()  # an earlier run may have started W&B's process in another directory
    return {
        "id": record.run_id,
        "name": title(record),
        "group": record.name,
        "save_dir": str(folder),
        "job_type": "train",
        "tags": _mixers(record),
        "resume": "allow",
        "config": config_of(record),
    }


def finish(succeeded: bool) -> None:
    """End the W&B run."""
    import wandb

    wandb.finish(exit_code=0 if succeeded else 1)


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


def title(record: RunRecord) -> str:
    """Return the name of a run in W&B: its mixers, its seed, the start of its id."""
    return "-".join([*_mixers(record), f"s{record.seed}", record.run_id[:6]])


def config_of(record: RunRecord) -> dict[str, Any]:
    """Return the resolved configuration; `derived` adds run id, layers, commit and versions."""
    derived = {
        "run_id": record.run_id,
        "layers": " ".join(layer["mixer"] for layer in record.plan),
        "commit": record.commit,
        "versions": record.versions,
    }
    return {**record.config, "derived": derived}


def _mixers(record: RunRecord) -> list[str]:
    return list(dict.fromkeys(layer["mixer"] for layer in record.plan))
