"""AdamW with a linear warm-up and a cosine decay.

Parameters may be tagged as taking no weight decay, or as having a learning rate of their own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from hybridlab.validate import number, positive


@dataclass(frozen=True, kw_only=True)
class AdamWCosine:
    """The settings of the optimiser.

    `warmup` is a share of all steps, `floor` the last learning rate as a share of `lr`.
    """

    version: ClassVar[int] = 1  # raised whenever the same settings make other steps

    lr: float
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    warmup: float = 0.05
    floor: float = 0.1

    def __post_init__(self) -> None:
        positive(lr=self.lr)
        number(least=0, weight_decay=self.weight_decay)
        number(least=0, most=1, beta1=self.beta1, beta2=self.beta2, warmup=self.warmup, floor=self.floor)

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0, as a share of `lr`."""
        warmup = max(1, round(self.warmup * steps))
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done))

    def rate_at(self, share: float) -> float:
        """Return the learning rate, as a share of `lr`, when a share of the budget is spent."""
        if share < self.warmup:
            return share / self.warmup
        done = min(1.0, (share - self.warmup) / max(1 - self.warmup, 1e-9))
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done))

    def configure(self, module: nn.Module, steps: int, share: Callable[[], float] | None = None) -> Any:
        """Return the optimiser and its schedule, for Lightning's `configure_optimizers`.

        The rate changes every step. It follows the number of the step in `steps`, or `share`, which
        returns the share of the budget that is spent.
        """
        # Not PyTorch's fused form: with it, Lightning refuses to clip gradients in mixed precision.
        groups = parameter_groups(module, self.weight_decay, self.lr)
        optimiser = torch.optim.AdamW(groups, lr=self.lr, betas=(self.beta1, self.beta2))
        rate = (lambda step: self.rate(step, steps)) if share is None else (lambda step: self.rate_at(share()))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def parameter_groups(module: nn.Module, weight_decay: float, lr: float = math.inf) -> list[dict[str, Any]]:
    """Split the parameters by weight decay and by learning rate.

    Matrices decay unless tagged; vectors and scalars (norms, biases) never do. The first two groups
    have the rate of the optimiser, `lr`. Each further group has an `lr` of its own: that of a
    parameter whose tag scales or caps the rate (`hybridlab.mixers.base.tag`).
    """
    common = [{"params": [], "weight_decay": weight_decay}, {"params": [], "weight_decay": 0.0}]
    groups: dict[tuple[bool, float], dict[str, Any]] = dict(zip(((True, lr), (False, lr)), common, strict=True))
    for parameter in module.parameters():
        decays = parameter.ndim >= 2 and getattr(parameter, "takes_weight_decay", True)
        cap, factor = getattr(parameter, "highest_lr", None), getattr(parameter, "lr_factor", 1.0)
        own = min(factor * lr, math.inf if cap is None else cap)
        new = {"params": [], "weight_decay": weight_decay if decays else 0.0, "lr": own}
        groups.setdefault((decays, own), new)["params"].append(parameter)
    return list(groups.values())
