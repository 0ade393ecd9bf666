"""One run, from the configuration to its record: a straight line."""

import os
import time
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from hybridlab.errors import ConfigError, RunFailedError
from hybridlab.evaluation.cost.layers import cost_rows, peak_memory_bytes, plan_rows
from hybridlab.evaluation.leak import check_plan
from hybridlab.records.claim import Claim, claimed
from hybridlab.records.measurement import Measurement
from hybridlab.records.record import RunRecord
from hybridlab.records.run_id import deciding
from hybridlab.records.store import FILE, read, write
from hybridlab.training.allocator import keep_freed_memory
from hybridlab.training.callbacks import Curve, DivergedError, StillOurs
from hybridlab.training.console import say, show_plan
from hybridlab.training.dashboard import dashboard, publish
from hybridlab.training.devices import check_batch, check_shards, followers
from hybridlab.training.fit import build_checkpoint, build_trainer, fit
from hybridlab.training.isolation import isolated
from hybridlab.training.job import Job, prepare
from hybridlab.training.module import StackModule
from hybridlab.training.provenance import commit, hardware, versions
from hybridlab.training.stream import BatchList, BatchStream

TRACEBACK = "traceback.txt"


def train_and_show(config: Any) -> float | None:
    """Train, print the run's table (in a multirun, the sweep's comes at its end), return the last validation NLL."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from hybridlab.report import print_and_write

    record = train(config)
    if record is None:
        return None
    if HydraConfig.get().mode == RunMode.RUN:
        print_and_write(Path(config.runs) / config.name / record.run_id)
    validated = [row.value for row in record.measurements if row.name == "validation/nll"]
    return validated[-1] if validated else None


def train(config: Any) -> RunRecord | None:
    """Train and evaluate what `config` declares, and return its record: read back if the run had finished before.

    None if another launcher is training the same run, for Lightning's `fast_dev_run`, which leaves nothing behind, and in
    the processes of a run on several devices but the first. A run that has diverged, or failed too often, is not tried
    again: RunFailedError says so.
    """
    job = prepare(config)
    # Built once to no other end: a mistake in its settings is refused before a folder is made.
    trainer = build_trainer(job, Curve(job.task.tokens_per_step), None, [build_checkpoint(job)])
    check_batch(job.task.batch, trainer)
    if job.in_shards:
        with torch.device("meta"):
            check_shards(job.build_stack())
    if job.config["trainer"].get("fast_dev_run"):
        with isolated(job.config["seed"]), followers(trainer):
            rehearse(job)
        return None
    if trainer.global_rank > 0:
        with isolated(job.config["seed"]), followers(trainer):
            follow(job)
        return None
    with claimed(job.directory) as claim:
        if claim is None:
            say(f"run {job.run_id}: another launcher is training it; skipped")
            return None
        earlier = read(job.directory) if (job.directory / FILE).exists() else None
        if earlier is not None and earlier.status == "finished":
            say(f"run {job.run_id}: finished already, in {job.directory}; skipped")
            return earlier
        if earlier is not None:
            refuse_to_retry(earlier, job.config["retries"])
        with isolated(job.config["seed"]), followers(trainer):
            return run(job, claim, failures=0 if earlier is None else earlier.failures)


def refuse_to_retry(record: RunRecord, retries: int) -> None:
    """Say why a run is not tried again, if so: it would diverge once more, or has failed often enough."""
    if record.status == "diverged":
        raise RunFailedError(f"run {record.run_id} diverged before: {record.reason}; not tried again")
    if record.status == "failed" and record.failures > retries:
        times = "once" if record.failures == 1 else f"{record.failures} times"
        raise RunFailedError(
            f"run {record.run_id} failed {times}, the last time by {record.reason}; not tried again (retries={retries})"
        )


def run(job: Job, claim: Claim, failures: int = 0) -> RunRecord:
    """Train, evaluate and record one claimed run, which has failed `failures` times before."""
    started = time.perf_counter()
    keep_freed_memory()
    stack = job.build_stack()
    checked = check_plan(job.plan, stack, job.task.length)
    record = replace(new_record(job, plan_rows(stack, job.task.length)), failures=failures)
    show_plan(record)
    for line in job.matching:
        say(f"match: {line}")
    for line in checked:
        say(f"leak gate: {line}")
    for line in job.without_kernels():
        say(f"kernels: {line}")
    write(record, job.directory)
    curve = Curve(job.task.tokens_per_step)
    try:
        with dashboard(job.config["logger"], record, job.folder) as logger:
            stack, device = fit(job, stack, curve, logger, [StillOurs(claim)])
            measured = measure(job, stack, record.plan, curve, device)
            claim.check()
            record = replace(
                record,
                status="finished",
                seconds=time.perf_counter() - started,
                measurements=[*curve.rows, *measured],
                evaluation=job.evaluation.stated(measured, job.task),
            )
            if logger is not None:
                publish(logger, record)
    except (ConfigError, RunFailedError):
        raise
    except (Exception, KeyboardInterrupt) as error:
        status = "diverged" if isinstance(error, DivergedError) else "failed"
        reason = reason_of(error)
        (job.directory / TRACEBACK).write_text(traceback.format_exc(), encoding="utf-8")
        ended = replace(
            record,
            status=status,
            reason=reason,
            failures=failures + (status == "failed" and not isinstance(error, KeyboardInterrupt)),
            seconds=time.perf_counter() - started,
            measurements=list(curve.rows),
        )
        write(ended, job.directory)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise RunFailedError(f"run {job.run_id} {status}: {reason} (see {job.directory / TRACEBACK})") from error
    write(record, job.directory)
    (job.directory / TRACEBACK).unlink(missing_ok=True)  # of an earlier try
    return record


def reason_of(error: BaseException) -> str:
    """Return in one line why a run ended; running out of memory has many names, and is called by one."""
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    told = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in reason
    return f"out of memory ({reason.rstrip(': ')})" if told else reason


def follow(job: Job) -> None:
    """Take part in the training of a run that another process, the first of several, keeps the record of."""
    if (job.directory / FILE).exists() and read(job.directory).status == "finished":
        return
    try:
        fit(job, job.build_stack(), Curve(job.task.tokens_per_step), None, [])
    except DivergedError as error:  # the first process has seen the same loss, and says so
        raise SystemExit(1) from error
    except Exception:
        job.directory.mkdir(parents=True, exist_ok=True)
        name = f"traceback-of-process-{os.environ.get('LOCAL_RANK', '')}.txt"
        (job.directory / name).write_text(traceback.format_exc(), encoding="utf-8")
        raise


def measure(job: Job, stack: Any, plan: list[dict[str, Any]], curve: Curve, device: torch.device) -> list[Measurement]:
    """Evaluate the trained stack: quality by layer group, the n-gram models beside it, cost."""
    say("evaluating")
    stack = stack.to(device)
    rows = job.evaluation.measure(stack, job.task, device)
    window, limit = job.evaluation.window, job.evaluation.limit
    for context, bits in job.task.baselines(job.evaluation.split, window=window, limit=limit).items():
        rows.append(
            Measurement(
                measure="ngram_bits_per_byte",
                value=bits,
                unit="bits/byte",
                split=job.evaluation.split,
                slice="context",
                bucket=str(context),
            )
        )
    rows += cost_rows(stack, plan, job.task.length, device)
    rows.append(Measurement(measure="tokens_per_second", value=curve.tokens_per_second, unit="tokens/s", split="train"))
    rows.append(Measurement(measure="peak_memory_bytes", value=peak_memory_bytes(device), unit="bytes"))
    return rows


def rehearse(job: Job) -> None:
    """Do Lightning's `fast_dev_run`: a batch or a few through training and validation; nothing is written."""
    stack = job.build_stack()
    module = StackModule(stack, job.optimiser, job.steps)
    trainer = build_trainer(job, Curve(job.task.tokens_per_step), None, [])
    validation = BatchList(job.evaluation.batches(job.task, "validation"))
    trainer.fit(module, BatchStream(job.task, job.steps), validation)
    say("fast_dev_run: training and validation ran; nothing was recorded")


def new_record(job: Job, plan: list[dict[str, Any]]) -> RunRecord:
    """Return the record of a run that begins."""
    return RunRecord(
        run_id=job.run_id,
        name=job.config["name"],
        status="running",
        seed=job.config["seed"],
        config=job.config,
        choices=choices(job.config),
        plan=plan,
        versions=versions(),
        commit=commit(),
        hardware={**hardware(), "task": job.task.describe()},
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )


def choices(config: dict[str, Any]) -> dict[str, Any]:
    """Flatten what tells one stack from another: everything that decides the results, but the seed."""
    flat: dict[str, Any] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{path}.{key}" if path else str(key))
        elif path != "seed":
            flat[path] = node

    walk(deciding(config), "")
    return flat
