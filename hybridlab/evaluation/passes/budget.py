"""What the probes of a stack cost, and the share of the rows that a budget pays for.

Costs are counted, not timed: in layers that one row passes through. Reading a row counts as many layers as the head, and a
perceptron in front of it, have weights, by those of a mean layer.
"""

from collections.abc import Iterable

from hybridlab.evaluation.passes.probes import READS, Run
from hybridlab.stack.measure import parameters
from hybridlab.stack.model import Stack


def share_of_rows(stack: Stack, runs: Iterable[Run], budget: float | None, calibrated: float) -> float:
    """Return the share of the rows that may be run under every probe.

    `budget` is in plain evaluations of all rows, null for no limit. What reads the intact stream is done on all rows, and
    that and a calibration on `calibrated` times their tokens come off first.
    """
    if budget is None:
        return 1.0
    read = (parameters(stack.reading) + parameters(stack.head)) * len(stack.layers) / parameters(stack.layers)
    left = budget * (len(stack.layers) + read) - calibrated * len(stack.layers)
    wanted = 0.0
    for run in runs:
        if run.kind in READS:
            left -= read
        else:
            wanted += num_layers(run, len(stack.layers)) + read
    return min(1.0, max(0.0, left / wanted)) if wanted else 1.0


def num_layers(run: Run, layers: int) -> int:
    """Return how many layers of a stack are run: from the first one changed; mixers that read windows read twice."""
    return layers - run.layers[0] + len(run.layers) * (run.kind == "reach")
