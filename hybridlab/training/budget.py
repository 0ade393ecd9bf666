"""How long a run trains: a number of steps, of FLOPs or of seconds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridlab import validate
from hybridlab.errors import ConfigError, near_miss, under
from hybridlab.evaluation.cost.layers import layer_costs
from hybridlab.stack.measure import forward_flops
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import Plan
from hybridlab.stack.readout import Readout
from hybridlab.tasks.base import Task

KINDS = ("steps", "seconds", "flops")


@dataclass(frozen=True)
class Budget:
    """When the training of a run is complete.

    `steps` is the number of optimiser steps, None under a budget of `seconds` of training. With
    `flops` the steps are those that so many FLOPs pay for.
    """

    steps: int | None
    seconds: float | None = None
    flops: float | None = None

    @property
    def declared(self) -> dict[str, Any]:
        """What was declared: one of steps, seconds and flops."""
        if self.seconds is not None:
            return {"seconds": self.seconds}
        return {"steps": self.steps} if self.flops is None else {"flops": self.flops}

    @property
    def explained(self) -> list[str]:
        """What was derived from it, in a line; none if nothing was."""
        return [] if self.flops is None else [f"{self.flops:g} FLOPs pay for {self.steps:,} steps"]


def declared_budget(config: Mapping[str, Any], folders: Sequence[Path]) -> tuple[str, int | float]:
    """Return the kind of a configuration's budget, one of KINDS, and its amount.

    Without `budget`, these are `trainer.max_steps`. A budget takes precedence over the `max_steps`
    of a trainer preset, one of the files trainer/*.yaml below `folders`; any other `max_steps` must
    be equal to it. Mistakes are ConfigErrors.
    """
    max_steps = config["trainer"].get("max_steps")
    node = config.get("budget") or {}
    if not isinstance(node, Mapping):
        raise ConfigError(f"`budget={node}`: must be one of budget.steps, budget.seconds and budget.flops")
    for key, value in node.items():
        if key not in KINDS:
            raise ConfigError(f"`budget.{key}={value}`: no such budget; {near_miss(str(key), KINDS)}")
    given = {key: value for key, value in node.items() if value is not None}
    if len(given) > 1:
        both = " and ".join(f"budget.{key}={value}" for key, value in given.items())
        raise ConfigError(f"`{both}`: a run has one budget; give one of them")
    if not given:
        with under("trainer"):
            validate.whole(max_steps=max_steps)
        return "steps", max_steps
    ((kind, amount),) = given.items()
    with under("budget"):
        validate.whole(steps=amount) if kind == "steps" else validate.positive(**{kind: amount})
    if max_steps not in (None, amount if kind == "steps" else None) and max_steps not in preset_steps(folders):
        raise ConfigError(
            f"`budget.{kind}={amount}`: with trainer.max_steps={max_steps} there are two; give one of them"
        )
    return kind, amount


def preset_steps(folders: Sequence[Path]) -> set[Any]:
    """Return the `max_steps` of all trainer presets below some folders."""
    from omegaconf import OmegaConf

    found = set()
    for folder in folders:
        for file in sorted((folder / "trainer").glob("*.yaml")):
            preset: Any = OmegaConf.load(file)
            found.add((preset.get("trainer") or preset).get("max_steps"))
    return found - {None}


def settled(kind: str, amount: int | float, flops_of_step: Callable[[], int]) -> Budget:
    """Return the budget of a kind and an amount; `flops_of_step` counts a step's where needed."""
    if kind == "steps":
        return Budget(int(amount))
    if kind == "seconds":
        return Budget(None, seconds=amount)
    flops = flops_of_step()
    steps = int(amount // flops)
    if steps < 1:
        raise ConfigError(f"`budget.flops={amount}`: must be at least one training step, which takes {flops} FLOPs")
    return Budget(steps, flops=amount)


def step_flops(plan: Plan, task: Task, trainer: Mapping[str, Any]) -> int:
    """Return the FLOPs of a training step: three times those of the forward pass of its batches.

    They are counted by `forward_flops`: matrix products, attention (the whole matrix, even if
    causal) and convolutions; the head is counted at every position that has a target or might.
    """
    import torch

    with torch.device("meta"):
        stack = Stack(plan, task.vocabulary, readout=task.readout, classes=task.classes)
    layers = sum(cost.flops for cost in layer_costs(stack, task.length))
    positions = task.length if task.readout is Readout.EVERY_POSITION else 1
    head = forward_flops(stack.head, stack.pooling.features, positions)
    return 3 * task.batch * trainer.get("accumulate_grad_batches", 1) * (layers + head)


def normal_form(config: Mapping[str, Any], budget: Budget) -> dict[str, Any]:
    """Return a configuration in which a budget of steps is `trainer.max_steps`, and any other one
    is `budget` without `max_steps`.
    """
    others = {key: value for key, value in config.items() if key != "budget"}
    trainer = {key: value for key, value in config["trainer"].items() if key != "max_steps"}
    if budget.flops is None and budget.steps is not None:
        return {**others, "trainer": {**config["trainer"], "max_steps": budget.steps}}
    return {**others, "trainer": trainer, "budget": budget.declared}


def check_uncut(trainer: Mapping[str, Any], budget: Budget) -> None:
    """Refuse arguments of Lightning's Trainer that would end a run before its budget is spent.

    A rehearsal (`fast_dev_run`) is cut short on purpose.
    """
    with under("trainer"):
        validate.whole(accumulate_grad_batches=trainer.get("accumulate_grad_batches", 1))
    if trainer.get("fast_dev_run"):
        return
    instead = f"write trainer.max_steps=N for a shorter run of {budget.steps} steps"
    if budget.seconds is not None:
        instead = f"write budget.seconds=N for a shorter run of {budget.seconds} seconds"
    if trainer.get("max_time") is not None:
        raise ConfigError(f"`trainer.max_time={trainer['max_time']}`: would cut the run short; write budget.seconds=N")
    if trainer.get("overfit_batches"):
        raise ConfigError(
            f"`trainer.overfit_batches={trainer['overfit_batches']}`: would train on the same batches again; "
            "a run draws a new batch for every step"
        )
    epochs = trainer.get("max_epochs")
    if epochs is not None and (type(epochs) is not int or (epochs < 1 and epochs != -1)):
        raise ConfigError(f"`trainer.max_epochs={epochs}`: the whole run is one epoch; must be 1, or -1: no limit")
    limit = trainer.get("limit_train_batches")
    enough = limit is None or (type(limit) is float and limit == 1.0)
    if type(limit) is int and budget.steps is not None:
        enough = limit >= budget.steps * trainer.get("accumulate_grad_batches", 1)
    if not enough:
        raise ConfigError(f"`trainer.limit_train_batches={limit}`: would cut the run short; {instead}")
    for key in ("min_steps", "min_epochs"):
        if budget.seconds is not None and trainer.get(key):
            raise ConfigError(f"`trainer.{key}={trainer[key]}`: would go on beyond budget.seconds={budget.seconds}")
