"""What a training step costs inside the model, and around it."""

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
from hybridlab.training.curve import Curve
from hybridlab.training.fit import build_trainer
from hybridlab.training.module import StackModule
from hybridlab.training.spec import RunSpec
from hybridlab.training.stream import BatchStream

STEPS = 20


def step_table(spec: RunSpec, device: torch.device) -> Table:
    """Time a training step bare (forward, backward, clipping, optimiser on a ready batch) and by Lightning, with its data."""
    bare, whole = [], []
    for _ in range(3):  # in turn, so that a drift of the machine's speed falls on both
        bare.append(_bare_step_ms(spec, device))
        whole.append(_lightning_step_ms(spec))
    inside, total = statistics.median(bare), statistics.median(whole)
    table = Table(title=f"a training step of the configured run, median of {STEPS}, ms")
    for column in ("inside the model", "with data and Lightning", "outside, share"):
        table.add_column(column, justify="right")
    table.add_row(f"{inside:.1f}", f"{total:.1f}", f"{(total - inside) / total:.1%}")
    return table


def _bare_step_ms(spec: RunSpec, device: torch.device) -> float:
    module = StackModule(spec.build_stack(), spec.optimiser, spec.steps).to(device)
    optimiser = module.configure_optimizers()["optimizer"]
    batch = module.on_before_batch_transfer(spec.task.train_batch(0), 0)
    batch = module.transfer_batch_to_device(batch, device, 0)
    taken = []
    for _ in range(STEPS):
        start = time.perf_counter()
        optimiser.zero_grad()
        module.training_nll(batch).mean().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        wait(device)
        taken.append(time.perf_counter() - start)
    return 1000 * statistics.median(taken)


def _lightning_step_ms(spec: RunSpec) -> float:
    module = StackModule(spec.build_stack(), spec.optimiser, spec.steps)
    settings = {
        "max_steps": STEPS,
        "limit_val_batches": 0.0,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
    }
    quiet = replace(spec, config={**spec.config, "trainer": {**spec.config["trainer"], **settings}})
    clock = _Clock()
    trainer = build_trainer(quiet, Curve(spec.task.tokens_per_step), [clock])
    trainer.fit(module, BatchStream(spec.task, STEPS))
    return 1000 * statistics.median(after - before for before, after in pairwise(clock.ends))


class _Clock(lightning.Callback):
    """Notes when each training step ends; between two ends lies a whole step, data and callbacks included."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        wait(pl_module.device)
        self.ends.append(time.perf_counter())
