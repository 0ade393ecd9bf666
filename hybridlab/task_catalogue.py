"""`hybridlab tasks`: the named tasks, and what each says of itself."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from hybridlab.build import find_target
from hybridlab.config import task_files


def show_tasks() -> None:
    """Print every task that the search path names: what is predicted, its headline measure, its slices, its source."""
    from omegaconf import OmegaConf

    table = Table(title="tasks", show_lines=True)
    for column in ("name", "what is predicted", "measure", "slices", "vocabulary", "source"):
        table.add_column(column, overflow="fold")
    for name, file in task_files().items():
        settings: Any = OmegaConf.to_container(OmegaConf.load(file))
        task = find_target(settings, f"task={name}")
        table.add_row(
            name, task.supervised, task.measures[0], ", ".join(task.slices), _ids(task, settings), task.source
        )
    Console().print(table)


def _ids(task: type, settings: Mapping[str, Any]) -> str:
    """Return the size of the vocabulary: a setting, or the task's own, or what its data give."""
    size = settings.get("vocabulary", getattr(task, "vocabulary", None))
    return "of the data" if size is None else f"{size:,}"
