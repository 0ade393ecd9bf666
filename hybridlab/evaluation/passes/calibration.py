"""What is taken from the training split: mean outputs of mixers, and the maps of the tuned lens.

Letters: d width; e is d + 1: the last row of a map is its constant.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hybridlab.evaluation.passes.to_device import to_device
from hybridlab.stack.model import Stack
from hybridlab.stack.packing import packing_of
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import IGNORED, Batch

RIDGE = 1e-3  # times the mean square of what is mapped


@dataclass(frozen=True)
class Calibration:
    """Mean outputs of modules, and for each layer the affine map from the residual stream after it
    to the one after the last layer.
    """

    means: dict[nn.Module, Float[Tensor, " d"]]
    maps: dict[int, Float[Tensor, "e d"]]

    def mapped(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Predict the residual stream after the last layer from the one after a layer."""
        weight = self.maps[layer].to(x)
        return x + x @ weight[:-1] + weight[-1]


def calibrate(stack: Stack, task: Task, layers: Iterable[int], num_batches: int, device: torch.device) -> Calibration:
    """Run the first training batches of a task through the intact stack, in evaluation mode.

    A map minimises the squared error over the positions that something is predicted from. It is
    fitted to the change of the stream, by ridge regression: with little data it falls back to the
    logit lens, and there is no learning rate to choose.
    """
    fits = {layer: _Fit(stack.plan.width) for layer in layers}
    with _watched(stack) as means:
        for step in range(num_batches):
            batch = to_device(task.train_batch(step), device)
            means.real = _real(stack, batch)
            residuals = list(stack.residuals(batch.inputs, packing_of(batch.documents)))
            used = stack.pooling.positions(batch.targets != IGNORED, means.real)
            for layer, fit in fits.items():
                fit.add(residuals[layer + 1][used], residuals[-1][used])
    return Calibration(
        {module: total / means.counts[module] for module, total in means.totals.items()},
        {layer: fit.solved() for layer, fit in fits.items()},
    )


class _Fit:
    """Ridge regression of y - x on x and 1, from sums over positions."""

    def __init__(self, width: int) -> None:
        self.inputs = torch.zeros(width + 1, width + 1, dtype=torch.float64)
        self.products = torch.zeros(width + 1, width, dtype=torch.float64)

    def add(self, x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> None:
        x, change = x.double(), (y - x).double()
        x = nn.functional.pad(x, (0, 1), value=1.0)
        self.inputs += (x.mT @ x).cpu()
        self.products += (x.mT @ change).cpu()

    def solved(self) -> Float[Tensor, "e d"]:
        penalty = torch.full(
            (len(self.inputs),), RIDGE * float(self.inputs.diagonal()[:-1].mean()), dtype=torch.float64
        )
        penalty[-1] = 0  # a constant costs nothing
        return torch.linalg.solve(self.inputs + penalty.diag(), self.products)


class _Means:
    """Sums and counts of the outputs of modules."""

    def __init__(self) -> None:
        self.totals: dict[nn.Module, Tensor] = {}
        self.counts: dict[nn.Module, int] = {}
        self.real: Bool[Tensor, "b t"] = torch.empty(0)

    def add(self, module: nn.Module, _inputs: Any, output: Float[Tensor, "n t d"]) -> None:
        # Packed documents are mixed in sequences of their own, padded with repeats of the last
        # token, which count too.
        taken = output[self.real] if output.shape[:2] == self.real.shape else output.flatten(0, 1)
        self.totals[module] = self.totals.get(module, 0) + taken.double().sum(0)
        self.counts[module] = self.counts.get(module, 0) + len(taken)


@contextmanager
def _watched(stack: Stack) -> Iterator[_Means]:
    """Sum up the outputs of every mixer, every part of a parallel mixer and every channel mixer."""
    means = _Means()
    with ExitStack() as hooks:
        layers: Any = stack.layers
        for layer in layers:
            for module in (layer.mixer, *getattr(layer.mixer, "parts", {}).values(), layer.channel):
                if module is not None:
                    hooks.callback(module.register_forward_hook(means.add).remove)
        yield means


def _real(stack: Stack, batch: Batch) -> Bool[Tensor, "b t"]:
    """Return which positions are not padding; a decoder's sequence is padded after its last
    target."""
    if batch.documents is not None:
        return batch.documents >= 0
    if not stack.pooling.by_position:
        return torch.ones_like(batch.inputs, dtype=torch.bool)
    return (batch.targets != IGNORED).flip(1).cumsum(1).flip(1) > 0
