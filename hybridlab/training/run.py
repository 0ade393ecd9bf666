"""One run, from its specification to its record: a straight line."""

import shutil
import time
from dataclasses import replace
from typing import Any

import torch

from hybridlab.errors import ConfigError, RunFailedError
from hybridlab.evaluation.check import check_own
from hybridlab.evaluation.cost.layers import plan_rows
from hybridlab.evaluation.cost.measurements import training_measurements
from hybridlab.evaluation.kept import missing
from hybridlab.evaluation.leak import LeakError, check_plan, check_trained, conditions_of
from hybridlab.evaluation.measured import Measured, joined
from hybridlab.records.claim import Claim, claimed
from hybridlab.records.record import ENDED, RunRecord
from hybridlab.records.store import FILE, read, write
from hybridlab.training import weights
from hybridlab.training.allocator import keep_freed_memory
from hybridlab.training.checkpoint import FOLDER, build_checkpoint, keeps_weights
from hybridlab.training.claim_guard import ClaimGuard
from hybridlab.training.config_file import write_config
from hybridlab.training.console import say, show_plan
from hybridlab.training.curve import Curve
from hybridlab.training.devices import check_batch, check_shards
from hybridlab.training.fit import Fitted, build_trainer, fit
from hybridlab.training.followers import follow, followers
from hybridlab.training.isolation import isolated
from hybridlab.training.loggers import Place, open_loggers, publish
from hybridlab.training.measuring import measured, with_measurements, without_failed
from hybridlab.training.new_record import TRACEBACK, new_record, record_end
from hybridlab.training.rehearsal import is_rehearsal, rehearse
from hybridlab.training.spec import RunSpec
from hybridlab.training.summary import training_summary


def train(spec: RunSpec) -> RunRecord | None:
    """Train and evaluate a run and return its record; what a finished run lacks is measured.

    Return None if another launcher is training the run, after a rehearsal (Lightning's
    `fast_dev_run`), and in all processes but the first of a run on several devices. Raise
    RunFailedError for a run that fails, has diverged before, or has failed more than `retries`
    times.
    """
    with isolated(spec.config["seed"]):
        curve = Curve(spec.tokens_per_step)
        trainer = build_trainer(spec, curve, [build_checkpoint(spec)])
        check_batch(spec.task.batch, trainer)
        keeps_weights(spec)
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
            if earlier is not None and earlier.status in ENDED:
                return measure_further(spec, earlier, trainer)
            check_retries(earlier, spec.config["retries"])
            return run(spec, claim, trainer, curve, earlier)


def check_retries(earlier: RunRecord | None, retries: int) -> None:
    """Refuse a run that diverged, or that failed more than `retries` times."""
    if earlier is None:
        return
    if earlier.status == "diverged":
        raise RunFailedError(f"run {earlier.run_id} diverged before: {earlier.reason}; not tried again")
    if earlier.status == "failed" and earlier.failures > retries:
        times = "once" if earlier.failures == 1 else f"{earlier.failures} times"
        raise RunFailedError(
            f"run {earlier.run_id} failed {times}, the last time by {earlier.reason}; "
            f"not tried again (retries={retries})"
        )


def measure_further(spec: RunSpec, record: RunRecord, trainer: Any, *, again: bool = False) -> RunRecord:
    """Measure what a finished run lacks of the evaluation of `spec`; return its record.

    With `again`, measures that failed before are tried once more.
    """
    if again:
        record = replace(record, evaluations=without_failed(record))
    left = missing(spec.evaluation, spec.task, record.evaluations).evaluation
    if left is None:
        say(f"run {spec.run_id}: {record.status} already, in {spec.directory}; skipped")
        return record
    names = ", ".join(measure.name for measure in left.measures_of(spec.task))
    say(f"run {spec.run_id}: {record.status} already, in {spec.directory}; measuring {names}")
    stack = weights.load_weights(spec.build_stack(), spec.directory, record.weights)
    try:
        refuse_trained_leak(spec, stack, trainer)
    except LeakError as error:
        raise RunFailedError(f"run {spec.run_id}: {error}; nothing was measured") from error
    record = measured(record, spec, stack, trainer.strategy.root_device)
    write(record, spec.directory)
    with open_loggers(spec.config["logger"], record, Place(run=spec.directory, sweep=spec.folder)) as loggers:
        publish(loggers, record)
    return record


def run(spec: RunSpec, claim: Claim, trainer: Any, curve: Curve, earlier: RunRecord | None) -> RunRecord:
    """Train, measure, record and publish a claimed run; each step keeps what the one before
    made.
    """
    started = time.perf_counter()
    keep_freed_memory()
    stack = spec.build_stack()
    leaks = check_plan(spec.plan, stack, spec.task.length, **leak_conditions(spec, trainer))
    record = new_record(spec, plan_rows(stack, spec.task.length), earlier)
    announce(spec, record, leaks)
    write(record, spec.directory)
    write_config(spec)
    place = Place(run=spec.directory, sweep=spec.folder)
    with open_loggers(spec.config["logger"], record, place, earlier=lambda: curve.measurements) as loggers:
        try:
            if record.weights:
                say(f"run {spec.run_id}: trained already")
                stack = weights.load_weights(stack, spec.directory, record.weights)
                device = trainer.strategy.root_device
            else:
                trainer.loggers = loggers
                trainer.callbacks.insert(0, ClaimGuard(claim))
                with followers(spec, trainer):
                    fitted = fit(spec, stack, trainer, curve)
                stack, device = fitted.stack, fitted.device
                record = trained(record, spec, fitted, trainer, curve)
                write(record, spec.directory)
            refuse_trained_leak(spec, stack, trainer)
            record = measured(record, spec, stack, device)
            claim.check()
            status = "truncated" if record.reason else "finished"
            record = replace(record, status=status, seconds=record.seconds + time.perf_counter() - started)
            record = finish(spec, record)
        except (ConfigError, RunFailedError):
            raise
        except KeyboardInterrupt as error:
            record_end(spec, record, trainer, curve, error, time.perf_counter() - started)
            raise
        except Exception as error:
            ended = record_end(spec, record, trainer, curve, error, time.perf_counter() - started)
            raise RunFailedError(
                f"run {spec.run_id} {ended.status}: {ended.reason} (see {spec.directory / TRACEBACK})"
            ) from error
        publish(loggers, record)
    return record


def leak_conditions(spec: RunSpec, trainer: Any) -> dict[str, Any]:
    """Return how the run trains and evaluates, as the leak gate needs it."""
    conditions = conditions_of(spec.task, spec.evaluation, spec.config["trainer"])
    return {**conditions, "device": trainer.strategy.root_device}


def refuse_trained_leak(spec: RunSpec, stack: Any, trainer: Any) -> None:
    """Run the leak gate on trained weights, before the test split is read."""
    for line in check_trained(spec.plan, stack, spec.task.length, **leak_conditions(spec, trainer)):
        say(f"leak gate: {line}")


def announce(spec: RunSpec, record: RunRecord, leaks: list[str]) -> None:
    """Print the plan, what matching changed, the leak gate's lines, mixers without a kernel."""
    show_plan(record)
    said = {"match": spec.matching, "budget": spec.budget.explained, "leak gate": leaks}
    for title, lines in {**said, "kernels": spec.without_kernels()}.items():
        for line in lines:
            say(f"{title}: {line}")


def trained(record: RunRecord, spec: RunSpec, fitted: Fitted, trainer: Any, curve: Curve) -> RunRecord:
    """Keep the final weights; return the record of a run that is trained and not yet evaluated."""
    training = training_summary(spec, curve, trainer)
    if fitted.truncated:
        training["truncated"] = fitted.truncated
    digest = weights.save_weights(fitted.stack, spec.directory, spec.digest)
    record = replace(record, weights=digest, training=training, reason=fitted.truncated)
    speed = training_measurements(curve.tokens_per_second, fitted.device)
    return with_measurements(record, spec, joined([Measured(curve.measurements, {}), speed]))


def finish(spec: RunSpec, record: RunRecord) -> RunRecord:
    """Write the record of a run that is done; then remove what was kept for resuming it."""
    keep = keeps_weights(spec)
    record = record if keep else replace(record, weights="")
    write(record, spec.directory)
    shutil.rmtree(spec.directory / FOLDER, ignore_errors=True)
    (spec.directory / TRACEBACK).unlink(missing_ok=True)  # of an earlier try
    if not keep:
        (spec.directory / weights.FILE).unlink(missing_ok=True)
    return record
