"""`hybridlab bench`: what the mixers, a training step and the start cost on this machine."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from hybridlab.build import build
from hybridlab.config import mixer_files, resolve
from hybridlab.evaluation.cost import wait
from hybridlab.stack.plan import single_layer
from hybridlab.training.allocator import keep_freed_memory
from hybridlab.training.callbacks import Curve
from hybridlab.training.job import Job, prepare
from hybridlab.training.module import StackModule
from hybridlab.training.run import build_trainer
from hybridlab.training.stream import BatchStream

BATCH, HEADS, HEAD_WIDTH = 2, 4, 64
LENGTHS = (512, 2048, 8192)
STEPS = 20
WARM_UP, REPEATS = 4, 5  # the first rounds fetch memory from the kernel

console = Console()


def bench(config: Any) -> None:
    """Print three tables: mixers beside attention, a training step inside and outside the model, the start."""
    job = prepare(config)
    device = torch.device("cuda" if job.config["trainer"].get("accelerator") == "gpu" else "cpu")
    keep_freed_memory()
    console.print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    console.print(mixer_table(resolve(config)["mixers"], device))
    console.print(step_table(job, device))
    console.print(start_table())


def mixer_table(overrides: dict[str, Any], device: torch.device) -> Table:
    """Time forward and backward of every named mixer, beside the bare attention operation."""
    table = Table(
        title=f"forward + backward, ms, (b {BATCH}, {HEADS} heads of {HEAD_WIDTH}, float32); × attention in brackets"
    )
    table.add_column("mixer")
    for length in LENGTHS:
        table.add_column(f"t {length:,}", justify="right")
    table.add_column("growth 2,048 → 8,192", justify="right")
    reference = {length: _attention_ms(length, device) for length in LENGTHS}
    table.add_row("scaled_dot_product_attention", *(f"{reference[t]:.1f}" for t in LENGTHS), _growth(reference))
    width = HEADS * HEAD_WIDTH
    for name in mixer_files():
        layer = single_layer(name, width, overrides, mixer_files())
        mixer = build(layer.settings, layer.where, width=width).to(device)
        taken = {length: _module_ms(mixer, width, length, device) for length in LENGTHS}
        table.add_row(name, *(f"{taken[t]:.1f} ({taken[t] / reference[t]:.2f}×)" for t in LENGTHS), _growth(taken))
    return table


def step_table(job: Job, device: torch.device) -> Table:
    """Time a training step bare (forward, backward, clipping, optimiser on a ready batch) and by Lightning, with its data."""
    bare, whole = [], []
    for _ in range(3):  # in turn, so that a drift of the machine's speed falls on both
        bare.append(_bare_step_ms(job, device))
        whole.append(_lightning_step_ms(job))
    inside, total = statistics.median(bare), statistics.median(whole)
    table = Table(title=f"a training step of the configured run, median of {STEPS}, ms")
    for column in ("inside the model", "with data and Lightning", "outside, share"):
        table.add_column(column, justify="right")
    table.add_row(f"{inside:.1f}", f"{total:.1f}", f"{(total - inside) / total:.1%}")
    return table


def start_table() -> Table:
    """Time the start of a process that imports hybridlab, less that of one which imports nothing, and of `--help`."""
    nothing = _process_seconds(["-c", "pass"])
    table = Table(title="start, s")
    for column in ("import hybridlab", "hybridlab --help, whole process"):
        table.add_column(column, justify="right")
    imported = _process_seconds(["-c", "import hybridlab"]) - nothing
    table.add_row(f"{max(imported, 0):.3f}", f"{_process_seconds(['-m', 'hybridlab', '--help']):.3f}")
    return table


def _attention_ms(length: int, device: torch.device) -> float:
    shape = (BATCH, HEADS, length, HEAD_WIDTH)
    q, k, v = (torch.randn(shape, device=device, requires_grad=True) for _ in range(3))
    return _milliseconds(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True), [q, k, v], device)


def _module_ms(module: nn.Module, width: int, length: int, device: torch.device) -> float:
    row = torch.randn(BATCH, length, width, device=device, requires_grad=True)
    return _milliseconds(lambda: module(row), [row, *module.parameters()], device)


def _milliseconds(call: Callable[[], Tensor], inputs: list[Tensor], device: torch.device) -> float:
    taken = []
    for _ in range(WARM_UP + REPEATS):
        wait(device)
        start = time.perf_counter()
        output = call()
        torch.autograd.grad(output, inputs, torch.ones_like(output))
        wait(device)
        taken.append(time.perf_counter() - start)
    return 1000 * statistics.median(taken[WARM_UP:])


def _bare_step_ms(job: Job, device: torch.device) -> float:
    module = StackModule(job.build_stack(), job.optimiser, job.steps).to(device)
    optimiser = module.configure_optimizers()["optimizer"]
    batch = job.task.train_batch(0)
    inputs, targets = batch.inputs.to(device), batch.targets.to(device)
    taken = []
    for _ in range(STEPS):
        start = time.perf_counter()
        optimiser.zero_grad()
        F.cross_entropy(module.stack(inputs).flatten(0, 1).float(), targets.flatten()).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        wait(device)
        taken.append(time.perf_counter() - start)
    return 1000 * statistics.median(taken)


def _lightning_step_ms(job: Job) -> float:
    module = StackModule(job.build_stack(), job.optimiser, job.steps)
    settings = {
        "max_steps": STEPS,
        "limit_val_batches": 0.0,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
    }
    quiet = replace(job, config={**job.config, "trainer": {**job.config["trainer"], **settings}})
    clock = _Clock()
    trainer = build_trainer(quiet, Curve(job.task.tokens_per_step), None, [clock])
    trainer.fit(module, BatchStream(job.task, STEPS))
    return 1000 * statistics.median(after - before for before, after in pairwise(clock.ends))


class _Clock(lightning.Callback):
    """Notes when each training step ends; between two ends lies a whole step, data and callbacks included."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        wait(pl_module.device)
        self.ends.append(time.perf_counter())


def _process_seconds(arguments: list[str]) -> float:
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _growth(taken: dict[int, float]) -> str:
    return f"{taken[8192] / taken[2048]:.2f}×"
