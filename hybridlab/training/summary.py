"""What the training of a run was, as its record states it."""

from typing import Any

from hybridlab.training.curve import Curve
from hybridlab.training.machine import device_name
from hybridlab.training.spec import RunSpec


def training_summary(spec: RunSpec, curve: Curve, trainer: Any) -> dict[str, Any]:
    """Return the budget, and what has been trained of it.

    `steps` are those of the optimiser; `tokens` are read in them, padding included; `epochs` is
    `tokens` over the tokens of the training split, None where sequences are drawn anew; `seconds`
    are those of the training clock; `device` names what it was trained on.
    """
    corpus = spec.task.training_tokens
    return {
        "budget": spec.budget.declared,
        "steps": curve.step,
        "tokens": curve.tokens,
        "epochs": curve.tokens / corpus if corpus else None,
        "seconds": curve.clock.seconds,
        "device": device_name(trainer.strategy.root_device.type, trainer.world_size),
    }
