"""What interventions cost, and the share of the sequences that a budget pays for.

Costs are counted, not timed: in layers that one sequence passes through. Applying the head counts
as many layers as the head, and a perceptron in front of it, have weights, relative to a mean layer.
"""

from collections.abc import Iterable

from hybridlab.evaluation.passes.interventions import Intervention
from hybridlab.evaluation.passes.readings import Reading
from hybridlab.stack.measure import parameters
from hybridlab.stack.model import Stack


def share_of_sequences(
    stack: Stack,
    intact: Iterable[Reading],
    interventions: Iterable[Intervention],
    budget: float | None,
    calibrated: float,
) -> float:
    """Return the share of the sequences that every intervention can be run on.

    `budget` is in plain evaluations of all sequences, None for no limit. What is read of the intact
    stream is read on all sequences; that, and a calibration on `calibrated` times their tokens,
    come off the budget first.
    """
    if budget is None:
        return 1.0
    num_layers = len(stack.layers)
    head = (parameters(stack.pooling) + parameters(stack.head)) * num_layers / parameters(stack.layers)
    left = budget * (num_layers + head) - calibrated * num_layers
    for reading in intact:
        left -= reading.num_heads * head
    wanted = 0.0
    for intervention in interventions:
        wanted += intervention.num_layers_run(num_layers) + head
    return min(1.0, max(0.0, left / wanted)) if wanted else 1.0
