"""The modes in which a run calls a module, and a call in one of them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.errors import ConfigError
from hybridlab.evaluation.leak.conditions import Conditions
from hybridlab.evaluation.leak.generators import own_generators

SEED = 1
IN_WORDS = {"grad": "with gradients", "no_grad": "without gradients", "inference_mode": "in inference mode"}


class Mode(NamedTuple):
    """Training or evaluation mode, and whether gradients are recorded."""

    training: bool
    gradients: str  # grad | no_grad | inference_mode

    def __str__(self) -> str:
        mode = "training" if self.training else "evaluation"
        return f"in {mode} mode, {IN_WORDS[self.gradients]}"

    def context(self) -> AbstractContextManager[object]:
        """Return the context in which gradients are recorded or not."""
        return {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}[
            self.gradients
        ]()


TRAINING = Mode(True, "grad")
EVALUATION = Mode(False, "inference_mode")  # measures, and Lightning's validation
# Those of the measures that take gradients, and of whoever opens a finished run.
OTHER_EVALUATION = (Mode(False, "grad"), Mode(False, "no_grad"))


class Precision(NamedTuple):
    """The dtype of weights and inputs, the device, and the run's precision if that is what is
    probed."""

    name: str
    dtype: torch.dtype
    device: torch.device
    native: Conditions | None = None

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of a call."""
        return nullcontext() if self.native is None else self.native.autocast()


@contextmanager
def calling(module: nn.Module, mode: Mode, precision: Precision, seed: int = SEED) -> Iterator[None]:
    """Put a module into a mode, with the same random numbers every time."""
    module.train(mode.training)
    with own_generators(seed, precision.device), mode.context(), precision.autocast():
        yield


def call(
    module: nn.Module, x: Float[Tensor, "b t d"], mode: Mode, precision: Precision, seed: int = SEED
) -> Float[Tensor, "b t d"]:
    """Return what a module puts out for a copy of x in a mode, without its graph."""
    with calling(module, mode, precision, seed):
        y = module(x.clone().requires_grad_().clone() if mode.gradients == "grad" else x.clone())
    if not isinstance(y, Tensor) or y.shape != x.shape:
        got = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ConfigError(f"{type(module).__name__}.forward returns {got} for inputs of {list(x.shape)}")
    return y.detach()
