"""How well the intact stack predicts: NLL, and what follows from it."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from hybridlab.evaluation.measures.base import TargetMeasure
from hybridlab.evaluation.passes.requests import Request
from hybridlab.stack.plan import Plan
from hybridlab.tasks.base import Task


class NLL(TargetMeasure):
    """The mean negative log-likelihood of the scored targets; what every other measure is compared
    with.
    """

    name = "nll"
    unit = "nats/token"
    definition = "mean negative log-likelihood of the scored tokens; with a step: on the learning curve"
    source = "cross-entropy, Shannon 1948"
    better = "lower"
    title = "NLL\n(nats/token)"

    def requests(self, plan: Plan, groupings: Sequence[str], length: int) -> Iterable[Request]:
        """Ask for the intact stack."""
        return [Request()]


class Perplexity(NLL):
    """exp(NLL)."""

    name = "perplexity"
    unit = "1"
    definition = "exp of the NLL"
    source = "Jelinek et al. 1977"
    title = "Perplexity"
    compared = "nll"

    def scale(self, mean: float) -> float:
        """Return exp(mean)."""
        return math.exp(mean) if mean < 700 else math.inf


class BitsPerByte(NLL):
    """Bits per byte of text, which compares across tokenisers."""

    name = "bits_per_byte"
    unit = "bits/byte"
    definition = "negative log2-likelihood of the documents over their bytes, which compares across tokenisers"
    source = "arXiv:2101.00027"
    title = "Bits per\nbyte"
    compared = "nll"

    def applies_to(self, task: Task) -> bool:
        """Return whether the tokens stand for text."""
        return task.bytes_of_token is not None

    def ratio(self, total: np.ndarray, tokens: np.ndarray, bytes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return bits and bytes."""
        return total / math.log(2), bytes
