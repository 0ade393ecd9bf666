"""`hybridlab tasks`: the named tasks and how each describes itself."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hybridlab.build import find_target
from hybridlab.config import task_files


def show_tasks() -> None:
    """Print every task on the search path: what it predicts, its headline measure, its slices,
    its source."""
    from omegaconf import OmegaConf

    table = Table(title="tasks", show_lines=True)
    for column in ("name", "what is predicted, and the source", "measure", "slices", "ids"):
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "measure", "ids"))
    longest = 0
    for name, file in task_files().items():
        settings: Any = OmegaConf.to_container(OmegaConf.load(file))
        task = find_target(settings, f"task={name}")
        what = Text.assemble(task.predicts, "\n", (task.source, "dim"))
        slices = [declared.name for declared in task.slices]
        longest = max(longest, *map(len, slices))
        table.add_row(name, what, task.measures[0], ", ".join(slices), _ids(task, settings))
    table.columns[3].min_width = longest + 1  # a name and its comma
    Console().print(table)


def _ids(task: type, settings: Mapping[str, Any]) -> str:
    """Return the size of the vocabulary as set or as the task has it; `data` where the data
    decide."""
    size = settings.get("vocabulary", getattr(task, "vocabulary", None))
    return "data" if size is None else f"{size:,}"
