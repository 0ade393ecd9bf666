"""Tuning: of the values tried for a stack, the one with the best validation NLL is reported."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hybridlab.records.json_values import to_text
from hybridlab.records.record import RunRecord
from hybridlab.report.runs.scored import scored
from hybridlab.report.runs.statistics import Estimate, over_seeds

TUNED = ("optimizer.lr",)
Runs = tuple[RunRecord, ...]


class Trial(NamedTuple):
    """One setting of the tuned choices."""

    values: dict[str, Any]
    validation: Estimate | None  # NLL at the end of training, over the seeds that finished
    records: Runs


@dataclass(frozen=True)
class Tuning:
    """The settings tried for one stack, the chosen one first."""

    trials: tuple[Trial, ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """The chosen value of each tuned choice."""
        return self.trials[0].values if self.trials else {}

    @property
    def chosen(self) -> Runs:
        """The runs with the chosen values."""
        return self.trials[0].records

    @property
    def others(self) -> Runs:
        """The runs with values that were not chosen."""
        return tuple(record for trial in self.trials[1:] for record in trial.records)

    @property
    def tried(self) -> dict[str, list[int | float]]:
        """The numbers tried for each tuned choice, where there were several."""
        found = {
            key: [tried for trial in self.trials if isinstance(tried := trial.values.get(key), int | float)]
            for key in self.values
        }
        return {key: tried for key, tried in found.items() if len(set(tried)) > 1}

    @property
    def at_the_edge(self) -> dict[str, Any]:
        """The chosen values that are the smallest or largest tried: a better one may lie beyond."""
        tried = self.tried
        return {key: self.values[key] for key in tried if self.values[key] in (min(tried[key]), max(tried[key]))}


UNTUNED = Tuning()


def tune(
    groups: Sequence[tuple[dict[str, Any], Runs]], tuned: Sequence[str]
) -> list[tuple[dict[str, Any], Tuning]] | None:
    """Merge groups of runs that differ only in the `tuned` choices, and choose among their values.

    `None` if nothing was searched, or if the runs kept no validation NLL to choose by: every value
    is then a stack.
    """
    trials: list[tuple[str, str, dict[str, Any], Trial]] = []
    for choices, records in groups:
        rest = {key: value for key, value in choices.items() if key not in tuned}
        values = {key: choices[key] for key in tuned if key in choices}
        made = to_text([rest, records[0].derived], sort_keys=True)
        text = next((key for record in records if (key := scored(record))), "")
        trials.append((made, text, rest, Trial(values, validation(records), records)))
    known = {made: text for made, text, *_ in reversed(trials) if text}
    found: dict[tuple[str, str], tuple[dict[str, Any], list[Trial]]] = {}
    for made, text, rest, trial in trials:
        found.setdefault((made, text or known.get(made, "")), (rest, []))[1].append(trial)
    searches = [tried for _, tried in found.values() if len(tried) > 1]
    if not searches or any(map(_is_blind, searches)):
        return None
    return [(rest, Tuning(tuple(sorted(tried, key=_rank)))) for rest, tried in found.values()]


def validation(records: Runs) -> Estimate | None:
    """Return the last validation NLL of the finished runs, over seeds."""
    last = {}
    for record in records:
        if record.status == "finished" and record.seed not in last:
            curve = [each for each in record.measurements if (each.measure, each.split) == ("nll", "validation")]
            curve = [each for each in curve if each.step is not None and not each.bucket]
            if curve:
                last[record.seed] = max(curve, key=lambda each: each.step or 0).value
    return over_seeds(list(last.values())) if last else None


def _is_blind(trials: list[Trial]) -> bool:
    """Return whether runs finished, but none with a validation NLL."""
    finished = any(record.status == "finished" for trial in trials for record in trial.records)
    return finished and all(trial.validation is None for trial in trials)


def _rank(trial: Trial) -> tuple[int, float]:
    """Rank by the number of seeds that finished, as survivors flatter, then by validation NLL."""
    if trial.validation is None or math.isnan(trial.validation.value):
        return 0, math.inf
    return -(trial.validation.n or 1), trial.validation.value
