"""`hybridlab tasks`: the named tasks, and what each says of itself."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hybridlab.build import find_target
from hybridlab.config import task_files
from hybridlab.records.slices import SLICES


def show_tasks() -> None:
    """Print every task that the search path names: what is predicted, its headline measure, its slices, its source."""
    from omegaconf import OmegaConf

    table = Table(title="tasks", show_lines=True)
    for column in ("name", "what is predicted, and where it is from", "measure", "slices", "ids"):
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "measure", "ids"))
    table.columns[3].min_width = max(map(len, SLICES)) + 1  # a name and its comma
    for name, file in task_files().items():
        settings: Any = OmegaConf.to_container(OmegaConf.load(file))
        task = find_target(settings, f"task={name}")
        what = Text.assemble(task.supervised, "\n", (task.source, "dim"))
        table.add_row(name, what, task.measures[0], ", ".join(task.slices), _ids(task, settings))
    Console().print(table)


def _ids(task: type, settings: Mapping[str, Any]) -> str:
    """Return the size of the vocabulary: a setting, or the task's own, or `data`: what its data give."""
    size = settings.get("vocabulary", getattr(task, "vocabulary", None))
    return "data" if size is None else f"{size:,}"
