"""The measure that ranks stacks and those shown beside it, as the records declare them."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hybridlab.records.description import MeasureDescription
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.runs.titles import Measures, heading, in_words, measures_of, without_unit

FALLBACK = "nll"


class Headline(NamedTuple):
    """The measure that ranks stacks, and the one by which two of them are compared."""

    ranked: str
    compared: str
    unit: str  # of a difference
    best: str  # which comes first, in words
    higher_is_better: bool = False


def headline_of(stacks: Iterable[StackRuns]) -> Headline:
    """Return the headline of the finished stacks, from the headlines of their records.

    If these differ, the stacks were trained on different tasks. A measure of which more is better
    (accuracy) then goes first, though some stacks lack it; else the first headline that all of them
    measured; else the NLL.
    """
    finished = [stack for stack in stacks if stack.finished]
    measures = measures_of(finished)
    names = dict.fromkeys(stack.first.headline for stack in finished if stack.first.headline)
    if len(names) > 1:
        scores = [name for name in names if measures[name].better == "higher"]
        common = [name for name in names if all(stack.find(name) for stack in finished)]
        names = dict.fromkeys([*scores, *common])
    return headline_by(next(iter(names), FALLBACK), measures)


def headline_by(name: str, measures: Measures) -> Headline:
    """Return the headline that ranks by the measure of this name."""
    description = measures.get(name, MeasureDescription("", ""))
    compared = description.compared or name
    unit = measures[compared].unit if compared in measures else ""
    higher = description.better == "higher"
    return Headline(
        ranked=name,
        compared=compared,
        unit=unit if unit not in ("", "1") else without_unit(in_words(measures, compared)),
        best=f"{'highest' if higher else 'lowest'} {without_unit(in_words(measures, name))}",
        higher_is_better=higher,
    )


def quality(headline: Headline, stacks: Sequence[StackRuns]) -> list[str]:
    """Return the measures of quality to show: the headline, then every other with a direction.

    Those with the headline's direction come first. A measure that restates another one, as
    perplexity restates the NLL, is shown only if it is some stack's headline.
    """
    measures = measures_of(stacks)
    headlines = {stack.first.headline for stack in stacks}
    others = [
        name
        for name, found in measures.items()
        if found.better and name != headline.ranked and (not found.compared or name in headlines)
    ]
    others.sort(key=lambda name: (measures[name].better == "higher") != headline.higher_is_better)
    return [headline.ranked, *(name for name in others if any(stack.find(name) for stack in stacks))]


def restated(headline: Headline, stacks: Sequence[StackRuns]) -> list[str]:
    """Return the measures with a direction that restate another one and are not in `quality`."""
    shown = quality(headline, stacks)
    restating = (name for name, found in measures_of(stacks).items() if found.better and found.compared)
    return [name for name in restating if name not in shown and any(stack.find(name) for stack in stacks)]


def rank(headline: Headline, stack: StackRuns) -> float:
    """Return the sort key of a stack: the best comes first, one without the number last."""
    found = stack.find(headline.ranked)
    if found is None or math.isnan(found.value):
        return math.inf
    return -found.value if headline.higher_is_better else found.value


def ranked(stacks: Iterable[StackRuns]) -> list[StackRuns]:
    """Return the stacks, the best by their headline first."""
    stacks = list(stacks)
    headline = headline_of(stacks)
    return sorted(stacks, key=lambda stack: rank(headline, stack))


def compared_in_words(headline: Headline, measures: Measures) -> str:
    """Name the measure of differences, without its unit."""
    return without_unit(heading(measures, headline.compared))
