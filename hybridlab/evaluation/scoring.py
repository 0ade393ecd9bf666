"""One pass over the data: every target scored by the intact stack, and those of some rows under every probe."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hybridlab.evaluation.calibration import Calibration
from hybridlab.evaluation.probes import INTACT, READS, Run
from hybridlab.evaluation.readout import moved, readout, some_rows
from hybridlab.evaluation.scores import Scores, of_targets
from hybridlab.stack.interventions import averaged, blocked, silenced
from hybridlab.stack.model import Stack
from hybridlab.stack.packing import Packing
from hybridlab.tasks.batch import Batch


def score(
    stack: Stack,
    batches: Sequence[Batch],
    rows: Sequence[Bool[np.ndarray, " b"]],
    runs: Sequence[Run],
    calibration: Calibration,
    whole: Scores,
    few: Scores,
    device: torch.device,
) -> None:
    """Add to `whole` what the intact stack and the lenses make of all rows, to `few` what all changes make of `rows`."""
    lenses = [run for run in runs if run.kind in READS]
    changes = [run for run in runs if run.kind not in READS]
    for batch, chosen in zip(batches, rows, strict=True):
        here = moved(batch, device)
        residuals = list(stack.residuals(here.inputs, _packing(here)))
        places, intact = whole.count(batch), readout(stack, residuals[-1], here)
        whole.add(INTACT, intact.nll, places)
        whole.correct.add(intact.correct, places)
        for run in lenses:
            (layer,) = run.layers
            x = residuals[layer + 1]
            x = calibration.mapped(layer, x) if run.kind == "tuned_lens" else x
            whole.add(run, readout(stack, x, here).nll, places)
        if changes and chosen.any():
            places = few.count(batch, chosen)
            few.add(INTACT, intact.nll[_of_rows(batch, chosen)], places)
            here = some_rows(here, chosen)
            taken = torch.from_numpy(chosen).to(device)
            starts = {run.layers[0]: residuals[run.layers[0]][taken] for run in changes}
            for run, x in _changed(stack, here, starts, changes, calibration):
                few.add(run, readout(stack, x, here).nll, places)


def _changed(
    stack: Stack, batch: Batch, starts: dict[int, Tensor], changes: Sequence[Run], calibration: Calibration
) -> Iterator[tuple[Run, Float[Tensor, "b t d"]]]:
    """Yield the last residual stream of each changed stack.

    It starts from the intact one in front of the first layer that is changed: nothing before that is another.
    """
    packing = _packing(batch)
    for run in changes:
        first = run.layers[0]
        with _change(stack, run, calibration):
            x = stack.run(starts[first], first, packing)
        yield run, x


def _change(stack: Stack, run: Run, calibration: Calibration) -> AbstractContextManager[None]:
    if run.block is not None:
        return blocked(stack, run.layers, run.block, run.only)
    if run.kind == "mean_knockout":
        return averaged(stack, run.layers, run.part, calibration.means, run.only)
    return silenced(stack, run.layers, run.part, run.only)


def _packing(batch: Batch) -> Packing | None:
    return None if batch.documents is None else Packing.of(batch.documents)


def _of_rows(batch: Batch, rows: Bool[np.ndarray, " b"]) -> Bool[np.ndarray, " n"]:
    """Say of each scored target of a batch whether it lies in some of its rows."""
    inside = torch.from_numpy(rows).view(-1, *[1] * (batch.targets.ndim - 1))
    return of_targets(inside.expand_as(batch.targets), batch)
