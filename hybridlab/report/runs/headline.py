"""The measure by which a task is judged: the one place that decides it."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from hybridlab.report.runs.stack_runs import StackRuns


class Headline(NamedTuple):
    """By which measure stacks are ranked and told apart."""

    ranked: str  # the measure that orders stacks
    compared: str  # the measure of differences between stacks
    unit: str  # of a difference
    best: str  # what comes first, in words
    higher_is_better: bool = False


ACCURACY = Headline("accuracy", "accuracy", "accuracy", "highest accuracy", higher_is_better=True)
BITS = Headline("bits_per_byte", "nll", "nats/token", "fewest bits per byte")
NLL = Headline("nll", "nll", "nats/token", "lowest NLL")
TITLES = {
    "accuracy": "Accuracy",
    "example_accuracy": "Accuracy\nby example",
    "bits_per_byte": "Bits per\nbyte",
    "nll": "NLL\n(nats/token)",
    "perplexity": "Perplexity",
    "streamed_nll": "NLL streamed\n(nats/token)",
}


def headline_of(stacks: Iterable[StackRuns]) -> Headline:
    """Return accuracy where it was measured and bits per byte were not, else bits per byte, or NLL where bytes mean nothing."""
    finished = [stack for stack in stacks if stack.finished]
    if any(stack.find("accuracy") and not stack.find("bits_per_byte") for stack in finished):
        return ACCURACY
    return BITS if finished and all(stack.find("bits_per_byte") for stack in finished) else NLL


def columns(headline: Headline, stacks: Iterable[StackRuns]) -> list[str]:
    """Return the measures of quality to show of each stack, the headline first."""
    stacks = list(stacks)
    wanted = ("accuracy", "example_accuracy", "nll") if headline.higher_is_better else ("bits_per_byte", "nll")
    return [name for name in wanted if name == "nll" or any(stack.find(name) for stack in stacks)]


def rank(headline: Headline, stack: StackRuns) -> float:
    """Return what to sort stacks by, the best first; a stack without the number comes last."""
    found = stack.find(headline.ranked)
    if found is None or math.isnan(found.value):
        return math.inf
    return -found.value if headline.higher_is_better else found.value
