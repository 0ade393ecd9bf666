"""Whether training ended before its budget was spent, and why."""

from typing import Any

from hybridlab.training.budget import Budget
from hybridlab.training.curve import Curve


def truncation(budget: Budget, trainer: Any, curve: Curve) -> str:
    """Return how much was trained and what ended it; "" if the budget is spent."""
    if budget.seconds is not None:
        if curve.clock.seconds >= budget.seconds:
            return ""
        made = f"{curve.clock.seconds:.1f} of {budget.seconds} seconds"
    elif curve.step >= budget.steps:  # type: ignore[operator]
        return ""
    else:
        made = f"{curve.step} of {budget.steps} steps"
    cause = _cause(trainer)
    return f"ended after {made}{f' ({cause})' if cause else ''}"


def _cause(trainer: Any) -> str:
    """Return which callback stopped training, as far as it is known."""
    for callback in trainer.callbacks:
        if message := getattr(callback, "stopping_reason_message", None):
            return f"{type(callback).__name__}: {message}"
    return "a callback set `trainer.should_stop`" if trainer.should_stop else ""
