"""Divergence: something in training is no longer a finite number."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOST_PENDING = 1000


class DivergedError(RuntimeError):
    """A loss, a gradient or a weight is not a finite number.

    `step` is the step in which that began. `shown_by` is what must be repeated to find where: the
    "training" of that step, or "validation" after it; "" if nothing can be found.
    """

    def __init__(self, what: str, step: int, *, shown_by: str = "") -> None:
        super().__init__(what)
        self.step = step
        self.shown_by = shown_by


class Watch:
    """Finds the first step whose loss or gradient norm is not a finite number.

    What is watched stays on the device, so that no step waits for it; `check` waits.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[int, str, Tensor]] = []

    def see(self, step: int, **values: Tensor) -> None:
        """Take in the scalars of a step, counted from 1, by the keys of `_WORDS`."""
        self._pending += [(step, name, local(value.detach())) for name, value in values.items()]
        if len(self._pending) > MOST_PENDING:  # a run that logs nothing: fold them into the earliest bad one
            self._pending = self._bad()[:1]

    def check(self, strategy: Any) -> None:
        """Raise DivergedError, on every device alike, if a value was not finite."""
        bad = self._bad()
        step, name, value = bad[0] if bad else (_NEVER, "", torch.zeros(()))
        self._pending = bad[:1]
        first = int(_reduced(strategy, torch.tensor(step), "min"))
        if first < _NEVER:
            found = _WORDS[name].format(float(value)) if step == first else _ELSEWHERE
            raise DivergedError(f"{found} at step {first}", first, shown_by="training")

    def _bad(self) -> list[tuple[int, str, Tensor]]:
        if not self._pending:
            return []
        finite = torch.stack([value.double() for _, _, value in self._pending]).isfinite().tolist()
        return [seen for seen, is_finite in zip(self._pending, finite, strict=True) if not is_finite]


_NEVER = 2**62
_WORDS = {
    "training_loss": "the training loss is {}",
    "gradient_norm": "the norm of the gradient is {}",
    "loss_scale": "the gradients overflow at every loss scale down to 1",
}
_ELSEWHERE = "a loss or a gradient norm on another device is not finite"


def check_weights(module: nn.Module, strategy: Any, step: int, shown_by: str = "") -> None:
    """Raise DivergedError, on every device alike, if a weight is not finite after `step` steps."""
    name = bad_weight(module)
    bad = int(_reduced(strategy, torch.tensor(int(name is not None)), "max"))
    if bad:
        raise DivergedError(f"the weights are not finite after step {step}", step, shown_by=shown_by)


def bad_weight(module: nn.Module) -> str | None:
    """Return the first parameter or buffer with a value that is not finite, or None."""
    state = {
        name: local(value)
        for name, value in module.state_dict().items()
        if value.is_floating_point() or value.is_complex()
    }
    if all_finite(state.values()):
        return None
    return next(name for name, value in state.items() if not all_finite([value]))


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether all values of some tensors are finite; waits for the device once."""
    largest = [each.detach().abs().amax() for each in tensors if each.numel()]
    return not largest or bool(torch.stack([each.double() for each in largest]).isfinite().all())


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Return the norm of all gradients, in a form that `clip_grads_with_norm_` takes."""
    return torch.nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])


def local(tensor: Tensor) -> Tensor:
    """Return this device's part of a sharded tensor, and any other as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # type: ignore[operator]


def _reduced(strategy: Any, value: Tensor, by: str) -> Tensor:
    return strategy.reduce(value.to(strategy.root_device), reduce_op=by)
