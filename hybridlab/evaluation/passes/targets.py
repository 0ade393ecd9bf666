"""The pass over the scored targets: by the intact stack on all sequences, by changed stacks on a
share of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from hybridlab.evaluation.passes.budget import share_of_sequences
from hybridlab.evaluation.passes.calibration import Calibration, calibrate
from hybridlab.evaluation.passes.context import Context
from hybridlab.evaluation.passes.eval_mode import eval_mode
from hybridlab.evaluation.passes.interventions import INTACT, Intervention
from hybridlab.evaluation.passes.outputs import Outputs
from hybridlab.evaluation.passes.readings import Reading, TunedLensNLL
from hybridlab.evaluation.passes.requests import Request
from hybridlab.evaluation.passes.sampling import regrouped
from hybridlab.evaluation.passes.sums import WHOLE, Breakdown, TargetSums
from hybridlab.evaluation.passes.to_device import to_device
from hybridlab.stack.packing import packing_of
from hybridlab.tasks.batch import Batch

CALIBRATION_TOKENS = 2**17  # at most; and a quarter of those that are evaluated

Asked = dict[Intervention, dict[Reading, None]]  # what to read under each intervention, in the order asked for


class Scored(NamedTuple):
    """The sums over the targets of all sequences, and over those of the share that changed stacks
    are run on.
    """

    whole: TargetSums
    share: TargetSums

    def of(self, request: Request) -> TargetSums:
        """Return the sums that answer a request."""
        return self.whole if request.is_intact else self.share


def score(context: Context, requests: Sequence[Request]) -> Scored:
    """Sum up what the requests ask for."""
    intact: Asked = {INTACT: {}}
    changed: Asked = {INTACT: {}}
    for request in requests:
        asked = intact if request.is_intact else changed
        for term in request.terms:
            asked.setdefault(term.intervention, {})[term.reading] = None
    steps = _calibration_steps(context, [intact, changed])
    share = share_of_sequences(
        context.stack,
        intact[INTACT],
        [intervention for intervention in changed if intervention != INTACT],
        context.budget,
        steps * context.task.tokens_per_step / context.tokens,
    )
    breakdown = Breakdown(context.batches, context.slices)
    found = Scored(*(TargetSums(breakdown, context.task.bytes_of_token) for _ in range(2)))
    with eval_mode(context.stack), torch.inference_mode():
        tuned = [reading.layer for reading in intact[INTACT] if isinstance(reading, TunedLensNLL)]
        calibration = calibrate(context.stack, context.task, tuned, steps, context.device)
        for batch in context.batches:
            _score(context, batch, intact, calibration, found.whole)
        if len(changed) > 1:
            for batch in regrouped(context.batches, share, context.batch):
                _score(context, batch, changed, calibration, found.share)
    return found


def _score(context: Context, batch: Batch, asked: Asked, calibration: Calibration, sums: TargetSums) -> None:
    """Add what each stack makes of the targets of a batch."""
    cells, here = sums.count(batch), to_device(batch, context.device)
    for intervention, outputs in _outputs(context, here, asked, calibration):
        for reading in asked[intervention]:
            values = reading(outputs)
            _check_values(reading, values, len(cells.cells[WHOLE.name]))
            sums.add((intervention, reading), values, cells)


def _check_values(reading: Reading, values: Any, num_targets: int) -> None:
    """Refuse what a user's reading returns, unless it is a number per target."""
    if not isinstance(values, np.ndarray) or values.shape != (num_targets,):
        returned = f"shape {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise ValueError(
            f"{type(reading).__name__} returns {returned}; must return a NumPy array of shape ({num_targets},)"
        )


def _outputs(
    context: Context, batch: Batch, interventions: Iterable[Intervention], calibration: Calibration
) -> Iterator[tuple[Intervention, Outputs]]:
    """Yield the outputs of the intact stack and of each changed one.

    A changed stack starts from the intact residual stream in front of the first layer that is
    changed.
    """
    stack, packing = context.stack, packing_of(batch.documents)
    streams = list(stack.residuals(batch.inputs, packing))
    for intervention in interventions:
        changed = streams
        if intervention != INTACT:
            first = intervention.layers[0]
            with intervention.applied(stack, calibration):
                changed = [*streams[: first + 1], *stack.run_each(streams[first], first, packing)]
        yield intervention, Outputs(stack, batch, changed, calibration)


def _calibration_steps(context: Context, asked: Sequence[Asked]) -> int:
    """Return how many training batches calibrate the interventions and readings: none if none needs
    it.
    """
    each = [(intervention, reading) for some in asked for intervention in some for reading in some[intervention]]
    if not any(intervention.calibrated or reading.calibrated for intervention, reading in each):
        return 0
    return max(1, min(CALIBRATION_TOKENS, context.tokens // 4) // context.task.tokens_per_step)
