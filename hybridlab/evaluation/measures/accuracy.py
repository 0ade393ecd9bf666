"""How often the intact stack is right."""

from collections.abc import Iterable, Sequence

import numpy as np

from hybridlab.evaluation.measures.base import TargetMeasure
from hybridlab.evaluation.passes.readings import CORRECT
from hybridlab.evaluation.passes.requests import Request, Term
from hybridlab.stack.plan import Plan


class Accuracy(TargetMeasure):
    """The share of the scored targets that are predicted right."""

    name = "accuracy"
    unit = "1"
    definition = "share of the scored tokens whose target is the most likely token"
    source = "counted"
    better = "higher"
    title = "Accuracy"

    def requests(self, plan: Plan, groupings: Sequence[str], length: int) -> Iterable[Request]:
        """Ask for the intact stack."""
        return [Request((Term(1, reading=CORRECT),))]


class ExampleAccuracy(Accuracy):
    """The accuracy of each example, averaged over examples."""

    name = "example_accuracy"
    definition = "mean over examples of the share of an example's scored tokens that are right"
    source = "arXiv:2312.04927, its code"
    title = "Accuracy\nby example"

    def ratio(self, total: np.ndarray, tokens: np.ndarray, bytes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the accuracy of each unit, and 1 for each unit that has a target."""
        return total / np.maximum(tokens, 1), np.minimum(tokens, 1)
