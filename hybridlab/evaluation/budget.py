"""What the probes of a stack cost, and which rows are run under them so that the whole stays within a budget.

Costs are counted, not timed: in layers that one row passes through. Reading a row counts as many layers as the head, and a
perceptron in front of it, have weights, by those of a mean layer.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool

from hybridlab.evaluation.probes import READS, Run
from hybridlab.stack.measure import parameters
from hybridlab.stack.model import Stack

LEAST = 16  # rows of a sample: of fewer, an interval says little, and of one there is none


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


def sample(rows: Sequence[int], share: float) -> list[Bool[np.ndarray, " b"]]:
    """Choose a share of the rows of batches, at least `LEAST` or all: one by chance out of each stretch of neighbours.

    Rows are in the order of their documents, so that each document, and each part of a long one, gives its share. `rows` are
    the numbers of rows of the batches; the same choice is made each time. Where a budget is worth fewer rows than the least,
    the evaluation set is small, and so is what they take beyond it.
    """
    total = sum(rows)
    ends = np.linspace(0, total, max(min(total, LEAST), int(share * total)) + 1).astype(int)
    chosen = np.zeros(total, bool)
    chosen[np.random.default_rng(0).integers(ends[:-1], ends[1:])] = True
    return np.split(chosen, np.cumsum(rows)[:-1])
