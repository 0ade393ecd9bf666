"""Targets of a batch, scored by the intact stack, by its lenses and by changed stacks."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.evaluation.passes.calibration import Calibration
from hybridlab.evaluation.passes.probes import INTACT, Run
from hybridlab.evaluation.passes.readout import moved, readout
from hybridlab.evaluation.passes.scores import Scores
from hybridlab.stack.interventions import averaged, blocked, silenced
from hybridlab.stack.model import Stack
from hybridlab.stack.packing import Packing, packing_of
from hybridlab.tasks.batch import Batch


def score_intact(
    stack: Stack, batch: Batch, lenses: Sequence[Run], calibration: Calibration, scores: Scores, device: torch.device
) -> None:
    """Add what the intact stack and the lenses make of the targets of a batch."""
    here, places = moved(batch, device), scores.count(batch)
    residuals = list(stack.residuals(here.inputs, packing_of(here.documents)))
    intact = readout(stack, residuals[-1], here)
    scores.add(INTACT, intact.nll, places)
    scores.correct.add(intact.correct, places)
    for run in lenses:
        (layer,) = run.layers
        x = residuals[layer + 1]
        x = calibration.mapped(layer, x) if run.kind == "tuned_lens" else x
        scores.add(run, readout(stack, x, here).nll, places)


def score_changed(
    stack: Stack, batch: Batch, changes: Sequence[Run], calibration: Calibration, scores: Scores, device: torch.device
) -> None:
    """Add what the intact stack and each changed one make of the targets of a batch."""
    here, places = moved(batch, device), scores.count(batch)
    packing = packing_of(here.documents)
    residuals = list(stack.residuals(here.inputs, packing))
    scores.add(INTACT, readout(stack, residuals[-1], here).nll, places)
    for run, x in _changed(stack, residuals, packing, changes, calibration):
        scores.add(run, readout(stack, x, here).nll, places)


def _changed(
    stack: Stack,
    residuals: Sequence[Float[Tensor, "b t d"]],
    packing: Packing | None,
    changes: Sequence[Run],
    calibration: Calibration,
) -> Iterator[tuple[Run, Float[Tensor, "b t d"]]]:
    """Yield the last residual stream of each changed stack.

    It starts from the intact one in front of the first layer that is changed: nothing before that is another.
    """
    for run in changes:
        first = run.layers[0]
        with _change(stack, run, calibration):
            x = stack.run(residuals[first], first, packing)
        yield run, x


def _change(stack: Stack, run: Run, calibration: Calibration) -> AbstractContextManager[None]:
    if run.block is not None:
        return blocked(stack, run.layers, run.block, run.only)
    if run.kind == "mean_knockout":
        return averaged(stack, run.layers, run.part, calibration.means, run.only)
    return silenced(stack, run.layers, run.part, run.only)
