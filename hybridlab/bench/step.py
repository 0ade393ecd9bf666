"""The time of a training step: bare, and run by Lightning with its data."""

import statistics
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import lightning
import torch
from rich.table import Table
from torch import nn

from hybridlab.evaluation.cost.layers import wait
from hybridlab.training.budget import Budget
from hybridlab.training.curve import Curve
from hybridlab.training.fit import build_module, build_trainer
from hybridlab.training.module import StackModule
from hybridlab.training.spec import RunSpec

STEPS = 20


def step_table(spec: RunSpec, device: torch.device) -> Table:
    """Time a bare training step, and one that Lightning runs with its data.

    The bare step is forward, backward, clipping and optimiser on a batch in memory.
    """
    bare, whole = [], []
    for _ in range(3):  # alternating, so that drifts of the machine's speed affect both
        bare.append(_bare_step_ms(spec, device))
        whole.append(_lightning_step_ms(spec))
    bare_ms, whole_ms = statistics.median(bare), statistics.median(whole)
    table = Table(title=f"training step, ms, median of {STEPS}")
    for column in ("bare", "with data and Lightning", "overhead"):
        table.add_column(column, justify="right")
    table.add_row(f"{bare_ms:.1f}", f"{whole_ms:.1f}", f"{(whole_ms - bare_ms) / whole_ms:.1%}")
    return table


def _bare_step_ms(spec: RunSpec, device: torch.device) -> float:
    module = StackModule(spec.build_stack(), spec.optimiser, spec.steps).to(device)
    optimiser = module.configure_optimizers()["optimizer"]
    batch = module.on_before_batch_transfer(spec.task.train_batch(0), 0)
    batch = module.transfer_batch_to_device(batch, device, 0)
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        optimiser.zero_grad()
        module.training_nll(batch).mean().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        wait(device)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def _lightning_step_ms(spec: RunSpec) -> float:
    settings = {
        "max_steps": STEPS,
        "limit_val_batches": 0.0,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
    }
    config = {**spec.config, "trainer": {**spec.config["trainer"], **settings}}
    short_run = replace(spec, config=config, budget=Budget(STEPS))
    clock = _Clock()
    trainer = build_trainer(short_run, Curve(spec.tokens_per_step), [clock])
    trainer.fit(*build_module(short_run, spec.build_stack(), trainer))
    return 1000 * statistics.median(end - start for start, end in pairwise(clock.ends))


class _Clock(lightning.Callback):
    """Records the end of each training step.

    The time between two ends includes data and callbacks.
    """

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        wait(pl_module.device)
        self.ends.append(time.perf_counter())
