"""From the configuration to everything that a run needs, checked before anything is written."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hybridlab.build import build
from hybridlab.config import mixer_files, resolve, search_path, with_search_path
from hybridlab.evaluation.cost.kernels import without_kernels
from hybridlab.evaluation.evaluation import Evaluation
from hybridlab.evaluation.measures.build import task_measures
from hybridlab.records.run_id import identity_digest, run_id
from hybridlab.stack.match import matched, what_and_reference
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import Plan, expand, in_normal_form, single_layer
from hybridlab.tasks.check import check_readout
from hybridlab.training.budget import Budget, check_uncut, declared_budget, normal_form, settled, step_flops
from hybridlab.training.identity import identity_of
from hybridlab.training.logger_settings import check_declared, declared_loggers
from hybridlab.training.machine import machine
from hybridlab.training.optimiser import AdamWCosine
from hybridlab.training.stream import UNENDING
from hybridlab.training.trainer_arguments import check_trainer


@dataclass(frozen=True)
class RunSpec:
    """Everything that defines one run, checked; nothing is on a device yet."""

    config: dict[str, Any]  # resolved; the stack in its normal form
    plan: Plan
    task: Any
    optimiser: AdamWCosine
    evaluation: Evaluation
    identity: dict[str, Any]  # what decides the results, see `identity_of`
    folder: Path  # of the sweep: runs/<name>
    derived: dict[str, Any]  # what `stack.match` set: dotted key -> value
    matching: tuple[str, ...]  # what `stack.match` changed, a line each
    search_path: tuple[Path, ...]  # the folders that the configuration's files were found in
    budget: Budget

    @cached_property
    def digest(self) -> str:
        """The digest of the identity, which checkpoints carry."""
        return identity_digest(self.identity)

    @property
    def run_id(self) -> str:
        """The name of the run."""
        return run_id(self.digest)

    @property
    def declared(self) -> dict[str, Any]:
        """The configuration as `prepare` takes it again, with its search path."""
        return with_search_path(self.config, self.search_path)

    @property
    def directory(self) -> Path:
        """The run's own folder."""
        return self.folder / self.run_id

    @property
    def steps(self) -> int:
        """The number of optimiser steps of the whole schedule; without end under a budget in
        seconds.
        """
        return UNENDING if self.budget.steps is None else self.budget.steps

    @property
    def micro_batches(self) -> int:
        """The number of batches that a step accumulates the gradients of."""
        return self.config["trainer"].get("accumulate_grad_batches", 1)

    @property
    def tokens_per_step(self) -> int:
        """The number of tokens that a step of the optimiser reads, padding included."""
        return self.task.tokens_per_step * self.micro_batches

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
    plan = declared = expand(plain["stack"], plain["mixers"], files, causal=task.causal)
    matching: list[str] = []
    mixers: dict[str, Any] = {}  # the normal form of the stack holds the settings of its own
    if plain["stack"].get("match") is not None:
        what, name = what_and_reference(plain["stack"]["match"], files)
        reference = single_layer(name, plan.width, plain["mixers"], files)
        mixers[name] = reference.settings
        plan, matching = matched(plan, what, task.length, reference)
    optimiser = build(plain["optimizer"], "optimizer")
    evaluation = build(plain["evaluation"], "evaluation", of_task=task_measures(task, folders))
    check_declared(plain["logger"])
    check_trainer(plain["trainer"], logs=bool(declared_loggers(plain["logger"])))
    budget = settled(*declared_budget(plain, folders), lambda: step_flops(plan, task, plain["trainer"]))
    check_uncut(plain["trainer"], budget)
    config = {**normal_form(plain, budget), "stack": in_normal_form(plain["stack"], declared), "mixers": mixers}
    return RunSpec(
        config=config,
        plan=plan,
        task=task,
        optimiser=optimiser,
        evaluation=evaluation,
        identity=identity_of(config, task) | ({"machine": machine(config)} if budget.seconds else {}),
        folder=Path(plain["runs"]) / plain["name"],
        derived=derived(plain["stack"], declared, plan),
        matching=tuple(matching),
        search_path=tuple(folders),
        budget=budget,
    )


def derived(stack: dict[str, Any], declared: Plan, plan: Plan) -> dict[str, Any]:
    """Return the settings in which a matched plan differs from the declared one, by dotted key."""
    before, after = (flattened({"stack": in_normal_form(stack, each)}) for each in (declared, plan))
    return {key: value for key, value in after.items() if key not in before or before[key] != value}


def flattened(node: dict[str, Any]) -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted key; lists are leaves."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": leaf for inner, leaf in flattened(value).items()}
        else:
            flat[str(key)] = value
    return flat
