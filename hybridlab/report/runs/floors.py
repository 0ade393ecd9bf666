"""What a guess reaches at a task: the floor below which a number says nothing about the mixer."""

import math
from collections.abc import Mapping
from typing import Any

from hybridlab.records.record import RunRecord


def floors(record: RunRecord) -> Mapping[str, float]:
    """Return what a guess reaches, by measure, as the task states it; {} if it is not known.

    Records of before tasks stated it have it from their settings: one of the `pairs` values of an
    MQAR example is right; the bytes of a planted string are uniform.
    """
    described = record.hardware.get("task", {})
    if isinstance(described, dict) and (stated := described.get("floors")):
        return stated
    task: dict[str, Any] = record.config.get("task") or {}
    match str(task.get("_target_")).rpartition(".")[2], task.get("pairs"):
        case "MQAR", int(pairs):
            return {"accuracy": 1 / pairs, "example_accuracy": 1 / pairs, "nll": math.log(pairs)}
        case "PlantedRecall", _:
            return {"nll": math.log(256)}
    return {}
