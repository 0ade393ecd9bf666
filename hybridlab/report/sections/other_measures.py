"""The measures of the whole stack by which tables do not rank, and which no other section shows."""

from collections.abc import Sequence

from hybridlab.report.content import Section, Table
from hybridlab.report.overview import COSTS
from hybridlab.report.runs.choices import distinguishing_keys, short_names, value
from hybridlab.report.runs.format import with_interval
from hybridlab.report.runs.headline import ranked
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.runs.titles import heading, measures_of, title

ORDER = 15
TITLE = "Other measures"


def section(stack: StackRuns) -> list[Section]:
    """Return a row per measure, with its definition."""
    rows = tuple(
        (heading(stack.measures, name), f"{stack.measures[name].definition}", with_interval(stack.find(name)))
        for name in others([stack])
    )
    table = Table(caption="Of the whole stack.", text=("Measure", "Definition"), numbers=("Value",), bodies=(rows,))
    return [Section(title=TITLE, tables=(table,))] if rows else []


def comparison(stacks: list[StackRuns], base: StackRuns) -> list[Section]:
    """Return a row per stack, a column per measure."""
    names = others(stacks)
    if not names:
        return []
    keys, measures = distinguishing_keys(stacks), measures_of(stacks)
    rows = (
        (*(value(stack, key) for key in keys), *(with_interval(stack.find(name)) for name in names))
        for stack in ranked(stacks)
        if any(stack.find(name) for name in names)
    )
    table = Table(
        caption="Of the whole stacks, with 95 % intervals.",
        text=tuple(short_names(keys).values()),
        numbers=tuple(title(measures, name) for name in names),
        bodies=(tuple(rows),),
        note=" ".join(f"{heading(measures, name)}: {measures[name].definition}." for name in names),
    )
    return [Section(title=TITLE, tables=(table,))]


def others(stacks: Sequence[StackRuns]) -> list[str]:
    """Return the measures without a direction that were taken only of whole stacks."""
    return [
        name
        for name, found in measures_of(stacks).items()
        if not found.better
        and name not in COSTS
        and any(stack.find(name) for stack in stacks)
        and not any(set(stack.values(name, "grouping")) - {"stack"} for stack in stacks)
    ]
