"""The evaluations that a record keeps, and what is missing from them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from hybridlab.evaluation.evaluation import Evaluation
from hybridlab.records.evaluation_key import evaluation_key
from hybridlab.tasks.base import Task


class Missing(NamedTuple):
    """What a record lacks of an evaluation."""

    key: str  # under which the record keeps it
    evaluation: Evaluation | None  # the measures that were not taken yet; None: all were


def missing(evaluation: Evaluation, task: Task, kept: Mapping[str, Mapping[str, Any]]) -> Missing:
    """Return what is not yet measured, given the evaluations that a record keeps.

    Measures with equal settings are one evaluation, to which further measures are added. A measure
    that was taken there with other settings of its own makes a new one.
    """
    wanted = evaluation.measure_settings(task)
    settings = evaluation.settings(task)
    key = evaluation_key(settings)
    have = kept.get(key, {}).get("measures", {})
    if any(name in have and have[name] != own for name, own in wanted.items()):
        key = evaluation_key({**settings, "measures": wanted})
        have = kept.get(key, {}).get("measures", {})
    left = [name for name in wanted if name not in have]
    return Missing(key, evaluation.only(left) if left else None)


def added(entry: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a kept evaluation, or {}, with the summary of further measures."""
    if not entry:
        return dict(summary)
    counted = {name: value for name, value in summary.items() if value is not None}
    return {**entry, **counted, "measures": {**entry["measures"], **summary["measures"]}}
