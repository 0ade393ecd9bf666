"""The MAD score of a stack: its accuracy at six small tasks, each at several difficulties."""

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
    """Accuracy by task, and the mean of all six tasks, or None if some were not run."""

    by_task: dict[str, float]
    score: float | None


def mad_score(records: Iterable[RunRecord]) -> MadScore:
    """Return the score of one stack from its finished runs (MAD, arXiv:2403.17844, section 3).

    A task's accuracy is the mean over the settings (vocabulary, length, examples, ...) at which it
    was run. A setting's accuracy is that of the best optimiser setting, averaged over seeds. Unlike
    MAD's code, this chooses the optimiser setting by validation NLL, not by its accuracy on the
    test split, and averages accuracy over scored tokens, not over classes.
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
    """Return the accuracy at the lowest validation NLL, both averaged over seeds."""
    return min(tuple(map(fmean, zip(*seeds, strict=True))) for seeds in seeds_of_optimisers)[1]


def _name(task: dict[str, Any]) -> str | None:
    """Return MAD's name of a task, or None; the tasks of MAD all have a fixed training set."""
    name = _CLASSES.get(str(task.get("_target_")).rpartition(".")[2])
    if name is None or task.get("examples") is None:
        return None
    return "noisy recall" if task.get("noise_share") else name


def _last(record: RunRecord, name: str) -> float | None:
    values = [each.value for each in record.measurements if each.name == name]
    return values[-1] if values else None
