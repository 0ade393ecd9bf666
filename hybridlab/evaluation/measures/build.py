"""From the configuration to a measure, checked before anything is trained."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridlab import validate
from hybridlab.build import build, find_target
from hybridlab.config import measure_files
from hybridlab.errors import ConfigError, under
from hybridlab.evaluation.measures.base import Measure
from hybridlab.tasks.base import Task
from hybridlab.tasks.slices import Slice

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_DIRECTIONS = ("lower", "higher", "")


def build_measure(node: Any, where: str) -> Measure:
    """Build the measure that a node of `evaluation` declares; `where` is its path below
    `evaluation`.
    """
    if where.endswith("._target_"):
        raise ConfigError(f"{where}={node}: must be below the name of the measure, e.g. `norm: {{_target_: ...}}`")
    if not isinstance(node, Mapping):
        raise ConfigError(f"{where}={node}: must be a `_target_` and its settings")
    find_measure(node, where)
    return build(node, f"evaluation.{where}")


def find_measure(node: Mapping[str, Any], where: str) -> type[Measure]:
    """Return the class of the measure that a node declares; refuse one that does not say what it
    measures.
    """
    target = find_target(node, f"evaluation.{where}")
    if not (isinstance(target, type) and issubclass(target, Measure)):
        raise ConfigError(f"{where}: {target.__name__} must be a hybridlab.evaluation.measures.base.Measure")
    _check_class(target, where)
    return target


def task_measures(task: Task, folders: Sequence[Path] | None = None) -> dict[str, Measure]:
    """Build what a task is judged by, NLL included, each with the settings of its YAML.

    The names are options of the config group `evaluation/measures`, in the `folders` of the search
    path.
    """
    files = measure_files(folders)
    found = {}
    for name in dict.fromkeys(("nll", *task.measures)):
        validate.choice(files, **{f"{type(task).__name__}.measures": name})
        with under("evaluation"):
            found[name] = build_measure(load_measure(files[name]), f"measures.{name}")
        if not found[name].applies_to(task):
            raise ConfigError(f"{type(task).__name__}.measures={list(task.measures)}: `{name}` does not apply to it")
    return found


def load_measure(file: Path) -> dict[str, Any]:
    """Read the `_target_` and the settings of a named measure; interpolations stay as they are
    written.
    """
    from omegaconf import OmegaConf

    node: Any = OmegaConf.to_container(OmegaConf.load(file))
    if not isinstance(node, dict) or list(node) != [file.stem] or not isinstance(node[file.stem], dict):
        raise ConfigError(f"{file}: must be `{file.stem}: {{_target_: ..., its settings}}`")
    return node[file.stem]


def _check_class(measure: type[Measure], where: str) -> None:
    """Refuse a class that does not say what it measures."""
    for key in ("name", "unit", "definition"):
        if not isinstance(getattr(measure, key, None), str) or not getattr(measure, key):
            raise ConfigError(f"{where}: {measure.__name__} must have a `{key}`, as text")
    if not _NAME.fullmatch(measure.name):
        raise ConfigError(f"{where}: {measure.__name__}.name={measure.name}: must be of lower case, digits and `_`")
    if measure.better not in _DIRECTIONS:
        raise ConfigError(f"{where}: {measure.__name__}.better={measure.better}: must be lower, higher or empty")
    if not all(isinstance(slice, Slice) for slice in measure.slices):
        raise ConfigError(f"{where}: {measure.__name__}.slices must be of hybridlab.tasks.slices.Slice")
    if measure.measure_together.__func__ is Measure.measure_together.__func__:  # type: ignore[attr-defined]
        raise ConfigError(f"{where}: {measure.__name__} must be a kind of measure, e.g. a TargetMeasure")
