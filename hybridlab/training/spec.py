"""From the configuration to everything that a run needs, checked before anything is written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridlab.build import build
from hybridlab.config import mixer_files, resolve, search_path, with_search_path
from hybridlab.errors import under
from hybridlab.evaluation.cost.kernels import without_kernels
from hybridlab.evaluation.evaluation import Evaluation
from hybridlab.evaluation.measures.build import task_measures
from hybridlab.records.run_id import identity_digest, run_id
from hybridlab.stack.match import matched, what_and_reference
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import Plan, expand, in_normal_form, single_layer
from hybridlab.tasks.check import check_readout
from hybridlab.training.optimiser import AdamWCosine
from hybridlab.validate import whole


@dataclass(frozen=True)
class RunSpec:
    """Everything that defines one run, checked; nothing is on a device yet."""

    config: dict[str, Any]  # resolved; the stack in its normal form
    plan: Plan
    task: Any
    optimiser: AdamWCosine
    evaluation: Evaluation
    run_id: str
    folder: Path  # of the sweep: runs/<name>
    matching: tuple[str, ...]  # what `stack.match` changed, a line each
    declared: dict[str, Any]  # the configuration that `prepare` was given, resolved, with its search path

    @property
    def directory(self) -> Path:
        """The run's own folder."""
        return self.folder / self.run_id

    @property
    def steps(self) -> int:
        """The number of optimiser steps of the whole schedule."""
        return self.config["trainer"]["max_steps"]

    @property
    def in_shards(self) -> bool:
        """Whether each device holds only its part of the stack."""
        return self.config["trainer"].get("strategy") == "fsdp"

    def without_kernels(self) -> list[str]:
        """Return a line for each mixer that runs without a kernel of ours.

        Kernels need a GPU, and most of them half precision; without these there are no lines.
        """
        trainer = self.config["trainer"]
        asked = trainer.get("accelerator") in ("gpu", "cuda") and "16" in str(trainer.get("precision"))
        return without_kernels(self.plan, self.task.length) if asked else []

    def build_stack(self) -> Stack:
        """Build the stack; its weights depend on the seed alone."""
        import torch

        torch.manual_seed(self.config["seed"])
        task = self.task
        return Stack(self.plan, task.vocabulary, readout=task.readout, classes=task.classes)


def prepare(config: Any) -> RunSpec:
    """Resolve and check a configuration and build its parts.

    Every mistake is a ConfigError, and nothing is written.
    """
    plain, folders = resolve(config), search_path(config)
    files = mixer_files(folders)
    task = build(plain["task"], "task", seed=plain["seed"])
    check_readout(task)
    plan = expand(plain["stack"], plain["mixers"], files, causal=task.causal)
    matching: list[str] = []
    if plain["stack"].get("match") is not None:
        what, name = what_and_reference(plain["stack"]["match"], files)
        reference = single_layer(name, plan.width, plain["mixers"], files)
        plan, matching = matched(plan, what, task.length, reference)
    optimiser = build(plain["optimizer"], "optimizer")
    evaluation = build(plain["evaluation"], "evaluation", of_task=task_measures(task, folders))
    with under("trainer"):
        whole(max_steps=plain["trainer"].get("max_steps"))
    resolved = {**plain, "stack": in_normal_form(plain["stack"], plan)}
    del resolved["mixers"]  # the normal form of the stack holds their settings
    return RunSpec(
        config=resolved,
        plan=plan,
        task=task,
        optimiser=optimiser,
        evaluation=evaluation,
        run_id=run_id(identity_digest(resolved, {})),
        folder=Path(plain["runs"]) / plain["name"],
        matching=tuple(matching),
        declared=with_search_path(plain, folders),
    )
