"""The MAD score of a stack: how accurate it is at six small tasks, each at several difficulties."""

import json
from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean
from typing import Any, NamedTuple

from hybridlab.records.record import RunRecord

TASKS = ("in-context recall", "fuzzy recall", "noisy recall", "selective copying", "compression", "memorization")
_CLASSES = {
    "InContextRecall": "in-context recall",
    "FuzzyRecall": "fuzzy recall",
    "SelectiveCopying": "selective copying",
    "Compression": "compression",
    "Memorization": "memorization",
}


class MadScore(NamedTuple):
    """Accuracy by task, of those that were run, and their mean: None unless all six were."""

    by_task: dict[str, float]
    score: float | None


def mad_score(records: Iterable[RunRecord]) -> MadScore:
    """Return the score of one stack from the records of its finished runs (MAD, arXiv:2403.17844, section 3).

    A task's accuracy is the mean over the settings (vocabulary, length, examples, ...) that it was run at; that of a setting
    is the best optimiser setting's, averaged over seeds. Differently from MAD's code, the best is the one with the lowest
    validation NLL, not the one that does best on the test split; and accuracy is the plain mean over scored tokens, where
    the code has the mean over classes.
    """
    runs: dict[str, dict[str, dict[str, list[tuple[float, float]]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for record in records:
        task, accuracy, nll = (
            _name(record.config.get("task", {})),
            _last(record, "test/accuracy"),
            _last(record, "validation/nll"),
        )
        if record.status == "finished" and task and accuracy is not None and nll is not None:
            setting, optimiser = (json.dumps(record.config.get(key), sort_keys=True) for key in ("task", "optimizer"))
            runs[task][setting][optimiser].append((nll, accuracy))
    by_task = {
        task: fmean(_of_the_best(by_optimiser.values()) for by_optimiser in runs[task].values())
        for task in TASKS
        if task in runs
    }
    return MadScore(by_task, fmean(by_task.values()) if len(by_task) == len(TASKS) else None)


def _of_the_best(seeds_of_optimisers: Iterable[list[tuple[float, float]]]) -> float:
    """Return the accuracy that goes with the lowest validation NLL, both averaged over seeds."""
    return min(tuple(map(fmean, zip(*seeds, strict=True))) for seeds in seeds_of_optimisers)[1]


def _name(task: dict[str, Any]) -> str | None:
    """Return what MAD calls a task; None if it is none of MAD's, whose training sets are all fixed."""
    name = _CLASSES.get(str(task.get("_target_")).rpartition(".")[2])
    if name is None or task.get("examples") is None:
        return None
    return "noisy recall" if task.get("noise_share") else name


def _last(record: RunRecord, name: str) -> float | None:
    values = [row.value for row in record.measurements if row.name == name]
    return values[-1] if values else None
