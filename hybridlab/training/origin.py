"""Where it began that a number is not finite: the first layer or parameter."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from hybridlab.stack.model import Stack
from hybridlab.tasks.batch import Batch
from hybridlab.training.divergence import all_finite, bad_weight, local

HEAD = "the output of the head is not finite"


def first_output(stack: Stack, batches: Iterable[Batch], device: torch.device) -> str:
    """Return which output of a stack in evaluation mode is first not finite; "" if none is."""
    if name := bad_weight(stack):
        return f"the weight `{name}` is {_kind(stack.state_dict()[name])}"
    stack = stack.to(device).eval()
    with torch.no_grad():
        for batch in batches:
            documents = None if batch.documents is None else batch.documents.to(device)
            with _outputs_of(stack) as found:
                logits = stack(batch.inputs.to(device), documents)
            if found or not all_finite([logits]):
                return found[0] if found else HEAD
    return ""


class StepRepeatedError(Exception):
    """The step that was looked at has been repeated."""


class Origin(lightning.Callback):
    """Finds where it began that a step is not finite, and leaves training by StepRepeatedError.

    Looked at are, in this order: the weights before the step, what modules return, the gradients as
    the backward pass completes them, and the weights after the step. `found` is the first that is
    not finite; "" if there is none.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self.found = ""
        self._hooks = ExitStack()
        self._outputs: list[str] | None = None
        self._gradients: list[str] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Look at the weights before the step, and from now on at outputs and gradients."""
        if trainer.global_step + 1 == self.step and self._outputs is None:
            self._look_at_weights(pl_module, self.step - 1)
            pl_module.hidden = pl_module.stack.hidden  # compiled code calls no hooks
            self._outputs = self._hooks.enter_context(_outputs_of(pl_module.stack))
            self._gradients = self._hooks.enter_context(_gradients_of(pl_module.stack))

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Take the first output or gradient."""
        if self._outputs is None:
            return
        outputs = self._outputs if all_finite([pl_module.last_nll]) else [*self._outputs, HEAD]
        if not (outputs or self._gradients):  # the parts of sharded gradients are complete only now
            backwards = reversed(list(pl_module.stack.named_parameters()))
            self._gradients += filter(None, (_gradient(name, each) for name, each in backwards))
        self.found = next(filter(None, (self.found, *outputs, *self._gradients)), "")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look at the weights after the step, and leave."""
        if trainer.global_step >= self.step:
            self._look_at_weights(pl_module, self.step)
            raise StepRepeatedError

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Remove the hooks."""
        self._hooks.close()

    def _look_at_weights(self, pl_module: Any, step: int) -> None:
        if not self.found and (name := bad_weight(pl_module.stack)):
            self.found = f"the weight `{name}` is {_kind(pl_module.stack.state_dict()[name])} after step {step}"


@contextmanager
def _outputs_of(stack: Stack) -> Iterator[list[str]]:
    """Yield a list that the first module, in the order of computation, whose output is not finite
    adds a line to.
    """
    found: list[str] = []

    def look(label: str) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            if not found and isinstance(output, Tensor) and not all_finite([output]):
                found.append(f"the output of {label} is {_kind(output)}")

        return hook

    handles = [module.register_forward_hook(look(label)) for label, module in _labelled(stack)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _gradients_of(stack: Stack) -> Iterator[list[str]]:
    """Yield a list that the first parameter, in backward order, whose gradient is not finite adds a
    line to.
    """
    found: list[str] = []

    def look(name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            if not found and (line := _gradient(name, parameter)):
                found.append(line)

        return hook

    handles = [each.register_post_accumulate_grad_hook(look(name)) for name, each in stack.named_parameters()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _labelled(stack: Stack) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that are looked at, as a message names them."""
    yield "`embedding`", stack.embedding
    for planned, layer in zip(stack.plan.layers, stack.layers, strict=True):
        for name, part in layer.named_children():
            about = f"{planned.mixer}, group {planned.group}" if name == "mixer" else f"group {planned.group}"
            yield f"`layers.{planned.index}.{name}` ({about})", part
        yield f"`layers.{planned.index}` (group {planned.group})", layer
    yield "`norm`", stack.norm
    yield "`pooling`", stack.pooling


def _gradient(name: str, parameter: Tensor) -> str:
    if parameter.grad is None or all_finite([local(parameter.grad)]):
        return ""
    return f"the gradient of `{name}` is {_kind(parameter.grad)}"


def _kind(tensor: Tensor) -> str:
    return "nan" if local(tensor.detach()).isnan().any() else "inf"
