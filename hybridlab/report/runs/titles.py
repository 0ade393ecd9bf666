"""The names of measures in headings and sentences, as the records give them."""

import re
from collections.abc import Iterable, Mapping

from hybridlab.records.description import MeasureDescription
from hybridlab.report.runs.stack_runs import StackRuns

Measures = Mapping[str, MeasureDescription]


def measures_of(stacks: Iterable[StackRuns]) -> dict[str, MeasureDescription]:
    """Return the description of every measure; if stacks disagree, the first decides."""
    found: dict[str, MeasureDescription] = {}
    for stack in stacks:
        found = {**stack.measures, **found}
    return found


def title(measures: Measures, name: str) -> str:
    """Return the heading of a measure's column, with its line breaks; by default its name."""
    return (measures[name].title if name in measures else "") or name.replace("_", " ")


def heading(measures: Measures, name: str) -> str:
    """Return the heading on one line."""
    return " ".join(title(measures, name).split())


def in_words(measures: Measures, name: str) -> str:
    """Return the heading within a sentence: in lower case, unless it starts with an acronym."""
    words = heading(measures, name)
    return words if words[:2].isupper() else words[0].lower() + words[1:]


def without_unit(words: str) -> str:
    """Drop a unit in brackets.

    >>> without_unit("NLL (nats/token)")
    'NLL'
    """
    return re.sub(r" \([^()]*\)$", "", words)
