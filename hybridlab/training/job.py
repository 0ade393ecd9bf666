"""From Hydra's configuration to everything a run needs, checked, before anything is written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridlab.build import build
from hybridlab.config import mixer_files, resolve
from hybridlab.errors import ConfigError
from hybridlab.evaluation.cost.kernels import without_kernels
from hybridlab.evaluation.quality import Quality
from hybridlab.records.run_id import run_id
from hybridlab.stack.match import matched, what_and_reference
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import Plan, expand, normal_form, single_layer
from hybridlab.training.optimiser import AdamWCosine


@dataclass(frozen=True)
class Job:
    """One run to be: (stack, task, seed, optimiser setting), not yet built on a device."""

    config: dict[str, Any]  # resolved; the stack in its normal form
    plan: Plan
    task: Any
    optimiser: AdamWCosine
    evaluation: Quality
    run_id: str
    folder: Path  # of the sweep: runs/<name>
    matching: tuple[str, ...]  # what `stack.match` changed, a line each

    @property
    def directory(self) -> Path:
        """Return the run's own folder."""
        return self.folder / self.run_id

    @property
    def steps(self) -> int:
        """Return the number of optimiser steps of the whole schedule."""
        return self.config["trainer"]["max_steps"]

    @property
    def in_shards(self) -> bool:
        """Say whether each device holds a part of the stack alone."""
        return self.config["trainer"].get("strategy") == "fsdp"

    def without_kernels(self) -> list[str]:
        """Say which mixers go without kernels of ours, if the run asks for what most of these need: a GPU, half precision."""
        trainer = self.config["trainer"]
        asked = trainer.get("accelerator") in ("gpu", "cuda") and "16" in str(trainer.get("precision"))
        return without_kernels(self.plan, self.task.length) if asked else []

    def build_stack(self) -> Stack:
        """Build the network with the seed's own weights."""
        import torch

        torch.manual_seed(self.config["seed"])
        task = self.task
        return Stack(self.plan, task.vocabulary, task.classes, pair=task.pair, bottleneck=task.bottleneck)


def prepare(config: Any) -> Job:
    """Resolve, check and build what `config` declares; every mistake is a ConfigError."""
    plain = resolve(config)
    task = build(plain["task"], "task", seed=plain["seed"])
    plan = expand(plain["stack"], plain["mixers"], mixer_files(), causal=task.causal)
    matching: list[str] = []
    if plain["stack"].get("match") is not None:
        what, name = what_and_reference(plain["stack"]["match"], mixer_files())
        reference = single_layer(name, plan.width, plain["mixers"], mixer_files())
        plan, matching = matched(plan, what, task.length, reference)
    optimiser = build(plain["optimizer"], "optimizer")
    evaluation = build(plain["evaluation"], "evaluation")
    _check_trainer(plain["trainer"])
    resolved = {**plain, "stack": normal_form(plain["stack"], plan)}
    del resolved["mixers"]  # their settings stand in the stack's groups now
    folder = Path(plain["runs"]) / plain["name"]
    return Job(resolved, plan, task, optimiser, evaluation, run_id(resolved), folder, tuple(matching))


def _check_trainer(trainer: dict[str, Any]) -> None:
    steps = trainer.get("max_steps")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ConfigError(
            f"`trainer.max_steps={steps}`: a whole number of at least 1 is needed: it is the schedule's length"
        )
