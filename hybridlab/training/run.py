"""One run, from its specification to its record: a straight line."""

import time
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import torch

from hybridlab.errors import ConfigError, RunFailedError
from hybridlab.evaluation.check import check_own
from hybridlab.evaluation.cost.layers import plan_rows
from hybridlab.evaluation.cost.measurements import cost_measurements, ngram_measurements, training_measurements
from hybridlab.evaluation.describe import described
from hybridlab.evaluation.leak import check_plan
from hybridlab.records.claim import Claim, claimed
from hybridlab.records.measurement import Measurement
from hybridlab.records.record import RunRecord
from hybridlab.records.run_id import identity_fields
from hybridlab.records.store import FILE, read, write
from hybridlab.training.allocator import keep_freed_memory
from hybridlab.training.claim_guard import ClaimGuard
from hybridlab.training.console import say, show_plan
from hybridlab.training.curve import Curve, DivergedError
from hybridlab.training.dashboard import dashboard, publish
from hybridlab.training.devices import check_batch, check_shards
from hybridlab.training.fit import build_checkpoint, build_trainer, fit
from hybridlab.training.followers import follow, followers
from hybridlab.training.isolation import isolated
from hybridlab.training.provenance import commit, hardware, versions
from hybridlab.training.rehearsal import is_rehearsal, rehearse
from hybridlab.training.spec import RunSpec

TRACEBACK = "traceback.txt"


def train(spec: RunSpec) -> RunRecord | None:
    """Train and evaluate a run and return its record; that of a finished run is read back.

    Return None if another launcher is training the run, after a rehearsal (Lightning's
    `fast_dev_run`), and in all processes but the first of a run on several devices. Raise
    RunFailedError for a run that fails, has diverged before, or has failed more than `retries`
    times.
    """
    with isolated(spec.config["seed"]):
        curve = Curve(spec.task.tokens_per_step)
        trainer = build_trainer(spec, curve, [build_checkpoint(spec)])
        check_batch(spec.task.batch, trainer)
        check_own(spec.evaluation, spec.task, spec.build_stack)
        if spec.in_shards:
            with torch.device("meta"):
                check_shards(spec.build_stack())
        if is_rehearsal(spec):
            with followers(spec, trainer):
                rehearse(spec, trainer)
            return None
        if trainer.global_rank > 0:
            follow(spec, trainer, curve)
            return None
        with claimed(spec.directory) as claim:
            if claim is None:
                say(f"run {spec.run_id}: another launcher is training it; skipped")
                return None
            earlier = read(spec.directory) if (spec.directory / FILE).exists() else None
            if earlier is not None and earlier.status == "finished":
                say(f"run {spec.run_id}: finished already, in {spec.directory}; skipped")
                return earlier
            failures = failures_of(earlier, spec.config["retries"])
            with followers(spec, trainer):
                return run(spec, claim, trainer, curve, failures)


def failures_of(earlier: RunRecord | None, retries: int) -> int:
    """Return how often a run has failed.

    Refuse one that diverged, or that failed more than `retries` times.
    """
    if earlier is None:
        return 0
    if earlier.status == "diverged":
        raise RunFailedError(f"run {earlier.run_id} diverged before: {earlier.reason}; not tried again")
    if earlier.status == "failed" and earlier.failures > retries:
        times = "once" if earlier.failures == 1 else f"{earlier.failures} times"
        raise RunFailedError(
            f"run {earlier.run_id} failed {times}, the last time by {earlier.reason}; "
            f"not tried again (retries={retries})"
        )
    return earlier.failures


def run(spec: RunSpec, claim: Claim, trainer: Any, curve: Curve, failures: int) -> RunRecord:
    """Train, evaluate and record a claimed run, which has failed `failures` times before."""
    started = time.perf_counter()
    keep_freed_memory()
    stack = spec.build_stack()
    leaks = check_plan(spec.plan, stack, spec.task.length)
    record = replace(new_record(spec, plan_rows(stack, spec.task.length)), failures=failures)
    announce(spec, record, leaks)
    write(record, spec.directory)
    try:
        with dashboard(spec.config["logger"], record, spec.folder) as logger:
            trainer.logger = logger
            trainer.callbacks.insert(0, ClaimGuard(claim))
            stack, device = fit(spec, stack, trainer, curve)
            measured = measure(spec, stack, record.plan, curve, device)
            claim.check()
            record = replace(
                record,
                status="finished",
                seconds=time.perf_counter() - started,
                evaluation=spec.evaluation.summary(measured, spec.task),
                **described([*curve.measurements, *measured], spec.evaluation.measures_of(spec.task), spec.task),
            )
            if logger is not None:
                publish(logger, record)
    except (ConfigError, RunFailedError):
        raise
    except KeyboardInterrupt as error:
        record_end(spec, record, curve, error, time.perf_counter() - started)
        raise
    except Exception as error:
        ended = record_end(spec, record, curve, error, time.perf_counter() - started)
        raise RunFailedError(
            f"run {spec.run_id} {ended.status}: {ended.reason} (see {spec.directory / TRACEBACK})"
        ) from error
    write(record, spec.directory)
    (spec.directory / TRACEBACK).unlink(missing_ok=True)  # of an earlier try
    return record


def announce(spec: RunSpec, record: RunRecord, leaks: list[str]) -> None:
    """Print the plan, what matching changed, the leak gate's lines, mixers without a kernel."""
    show_plan(record)
    for title, lines in (("match", spec.matching), ("leak gate", leaks), ("kernels", spec.without_kernels())):
        for line in lines:
            say(f"{title}: {line}")


def record_end(spec: RunSpec, record: RunRecord, curve: Curve, error: BaseException, seconds: float) -> RunRecord:
    """Write the record of a run that `error` ended, with the traceback; return the record."""
    (spec.directory / TRACEBACK).write_text(traceback.format_exc(), encoding="utf-8")
    failed = not isinstance(error, DivergedError | KeyboardInterrupt)
    ended = replace(
        record,
        status="diverged" if isinstance(error, DivergedError) else "failed",
        reason=reason_of(error),
        failures=record.failures + failed,
        seconds=seconds,
        **described(curve.measurements, spec.evaluation.measures_of(spec.task), spec.task),
    )
    write(ended, spec.directory)
    return ended


def reason_of(error: BaseException) -> str:
    """Return in one line why a run ended.

    Running out of memory raises several errors, which get one name.
    """
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in reason
    return f"out of memory ({reason.rstrip(': ')})" if memory else reason


def measure(
    spec: RunSpec, stack: Any, plan: list[dict[str, Any]], curve: Curve, device: torch.device
) -> list[Measurement]:
    """Evaluate the trained stack: quality by layer group, the n-gram models beside it, cost."""
    say("evaluating")
    stack = stack.to(device)
    return [
        *spec.evaluation.measure(stack, spec.task, device),
        *ngram_measurements(spec.evaluation, spec.task),
        *cost_measurements(stack, plan, spec.task.length, device),
        *training_measurements(curve.tokens_per_second, device),
    ]


def new_record(spec: RunSpec, plan: list[dict[str, Any]]) -> RunRecord:
    """Return the record of a run that starts."""
    return RunRecord(
        run_id=spec.run_id,
        name=spec.config["name"],
        status="running",
        seed=spec.config["seed"],
        config=spec.config,
        choices=choices(spec.config),
        plan=plan,
        versions=versions(),
        commit=commit(),
        hardware={**hardware(), "task": spec.task.describe()},
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        headline=spec.task.measures[0],
    )


def choices(config: dict[str, Any]) -> dict[str, Any]:
    """Return what distinguishes one stack from another, by dotted key.

    These are all settings that decide the results, except the seed.
    """
    flat: dict[str, Any] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{path}.{key}" if path else str(key))
        elif path != "seed":
            flat[path] = node

    walk(identity_fields(config), "")
    return flat
