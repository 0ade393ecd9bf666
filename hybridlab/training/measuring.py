"""Measuring a trained run: what its record lacks is measured and added."""

from collections.abc import Callable
from dataclasses import replace
from math import isfinite
from typing import Any

import torch

from hybridlab.evaluation.cost.measurements import cost_measurements, ngram_measurements
from hybridlab.evaluation.describe import described
from hybridlab.evaluation.kept import added, missing
from hybridlab.evaluation.measured import Measured, joined
from hybridlab.records.record import RunRecord
from hybridlab.stack.model import Stack
from hybridlab.training.console import say
from hybridlab.training.divergence import DivergedError
from hybridlab.training.origin import first_output
from hybridlab.training.spec import RunSpec


class NotMeasuredError(RuntimeError):
    """The measure that a run is ranked by could not be taken."""


def measured(record: RunRecord, spec: RunSpec, stack: Stack, device: torch.device) -> RunRecord:
    """Return a record with what it lacks of the evaluation of `spec`, and of the costs.

    Measurements that it has stay as they are. A measure that fails has the reason in `missing`
    instead of a value; the run fails only if the NLL or its headline has none.
    """
    left = missing(spec.evaluation, spec.task, record.evaluations)
    stack = stack.to(device)
    if left.evaluation is not None:
        say("evaluating")
        found = left.evaluation.measure(stack, spec.task, device)
        if left.key not in record.evaluations:
            found = joined([found, ngram_measurements(left.evaluation, spec.task)])
        batches = left.evaluation.batches(spec.task)
        check_decisive(found, record, lambda: first_output(stack, batches, device))
        summary = left.evaluation.summary(found.measurements, spec.task)
        others = {key: entry for key, entry in record.evaluations.items() if key != left.key}
        entry = added(record.evaluations.get(left.key, {}), summary)
        record = replace(record, evaluations={**others, left.key: entry})
        record = with_measurements(record, spec, found, evaluation=left.key)
    if not any(each.measure == "flops" for each in record.measurements):
        costs = cost_measurements(stack, record.plan, spec.task.length, device)
        record = with_measurements(record, spec, costs)
    return record


def with_measurements(record: RunRecord, spec: RunSpec, found: Measured, **about: Any) -> RunRecord:
    """Return a record with more measurements, and with the reasons for those that are missing;
    `about` are further fields of the measurements.
    """
    rows = [replace(each, **about) for each in found.measurements]
    taken = {each.measure for each in rows}
    reasons = {name: reason for name, reason in record.missing.items() if name not in taken}
    more = described(rows, spec.evaluation.measures_of(spec.task), spec.task, record)
    return replace(record, missing={**reasons, **found.missing}, **more)


def check_decisive(found: Measured, record: RunRecord, origin: Callable[[], str]) -> None:
    """Raise if the NLL or the measure that the task is ranked by has no value, or is no number;
    `origin` finds out which output of the stack is none.
    """
    for name in ("nll", record.headline):
        if reason := found.missing.get(name):
            raise NotMeasuredError(f"`{name}` could not be measured: {reason}")
    for each in found.measurements:
        if each.measure in ("nll", record.headline) and not each.bucket and not isfinite(each.value):
            steps = record.training.get("steps", 0)
            where = origin() or "run again, the outputs of the stack are finite"
            raise DivergedError(f"`{each.name}` is {each.value} after step {steps}: {where}", steps)


def without_failed(record: RunRecord) -> dict[str, dict[str, Any]]:
    """Return the evaluations of a record without the measures that failed, which may be tried
    again.
    """
    return {
        key: {**entry, "measures": {name: own for name, own in entry["measures"].items() if name not in record.missing}}
        for key, entry in record.evaluations.items()
    }
