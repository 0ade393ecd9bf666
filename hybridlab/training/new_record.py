"""The record of a run when it starts, and when it fails."""

import traceback
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hybridlab.errors import reason_of
from hybridlab.evaluation.describe import described
from hybridlab.evaluation.leak import LeakError
from hybridlab.records.record import RunRecord
from hybridlab.records.store import write
from hybridlab.training.curve import Curve
from hybridlab.training.divergence import DivergedError
from hybridlab.training.provenance import commit, hardware, versions
from hybridlab.training.spec import RunSpec, flattened
from hybridlab.training.summary import training_summary
from hybridlab.training.weights import FILE

TRACEBACK = "traceback.txt"


def new_record(spec: RunSpec, plan: list[dict[str, Any]], earlier: RunRecord | None) -> RunRecord:
    """Return the record of a run that starts.

    A run that was trained `earlier`, and not evaluated, keeps what it has.
    """
    if earlier is not None and earlier.weights and (spec.directory / FILE).is_file():
        return replace(earlier, status="running", reason=earlier.training.get("truncated", ""))
    return RunRecord(
        run_id=spec.run_id,
        name=spec.config["name"],
        status="running",
        failures=earlier.failures if earlier else 0,
        seed=spec.config["seed"],
        config=spec.config,
        derived=spec.derived,
        choices=choices(spec.identity),
        identity=spec.identity,
        plan=plan,
        versions=versions(),
        commit=commit(),
        hardware={**hardware(), "task": spec.task.describe()},
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        headline=spec.task.measures[0],
    )


def choices(identity: dict[str, Any]) -> dict[str, Any]:
    """Return what distinguishes one stack from another, by dotted key: all but the seed."""
    return {key: value for key, value in flattened(identity).items() if key != "seed"}


def record_end(
    spec: RunSpec, record: RunRecord, trainer: Any, curve: Curve, error: BaseException, seconds: float
) -> RunRecord:
    """Write the record of a run that `error` ended, with the traceback; return the record."""
    (spec.directory / TRACEBACK).write_text(traceback.format_exc(), encoding="utf-8")
    failed = not isinstance(error, DivergedError | KeyboardInterrupt)
    rows = [] if record.measurements else curve.measurements  # a trained run has its curve
    ended = replace(
        record,
        status="diverged" if isinstance(error, DivergedError) else "failed",
        reason=str(error) if isinstance(error, LeakError) else reason_of(error),
        failures=record.failures + failed,
        seconds=seconds,
        training=record.training or training_summary(spec, curve, trainer),
        **described(rows, spec.evaluation.measures_of(spec.task), spec.task, record),
    )
    write(ended, spec.directory)
    return ended
