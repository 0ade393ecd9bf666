"""Which stacks may stand in one table: those scored on the same text, under like budgets."""

from collections.abc import Sequence
from typing import NamedTuple

from hybridlab.report.runs.budget import kinds
from hybridlab.report.runs.scored import scored, scored_in_words
from hybridlab.report.runs.stack_runs import StackRuns


class Comparable(NamedTuple):
    """Stacks of one table, the first made first, and what sets them apart from the others."""

    stacks: list[StackRuns]
    words: str


def text_of(stack: StackRuns) -> str:
    """Return the key of the text that a stack was scored on, "" before any run was."""
    return next((key for record in stack.all_records if (key := scored(record))), "")


def comparable(stacks: Sequence[StackRuns]) -> list[Comparable]:
    """Return the stacks by what they were scored on and by the kind of their budget.

    A stack of which nothing is known yet stands with the first.
    """
    tables: dict[tuple[str, str], list[StackRuns]] = {}
    waiting: list[StackRuns] = []
    for stack in stacks:
        text = text_of(stack)
        if text or not any(text_of(other) for other in stacks):
            tables.setdefault((text, kinds(stack) if stack.finished else ""), []).append(stack)
        else:
            waiting.append(stack)
    _join_unfinished(tables)
    if waiting:
        next(iter(tables.values())).extend(waiting)
    return [Comparable(_in_order(found, stacks), _words(found, tables)) for found in tables.values()]


def why_apart(tables: Sequence[Comparable]) -> list[str]:
    """Return a sentence on why stacks stand in several tables; none if there is one."""
    if len(tables) < 2:
        return []
    return [
        f"These stacks stand in {len(tables)} tables and are not compared across them: "
        f"{' against '.join(f'table {number}: {table.words}' for number, table in enumerate(tables, start=1))}."
    ]


def _join_unfinished(tables: dict[tuple[str, str], list[StackRuns]]) -> None:
    """Let stacks whose budget is not known stand with those of the same text."""
    for text, kind in [key for key in tables if not key[1]]:
        like = next((key for key in tables if key[0] == text and key[1]), None)
        if like is not None:
            tables[like].extend(tables.pop((text, kind)))


def _words(stacks: Sequence[StackRuns], tables: dict[tuple[str, str], list[StackRuns]]) -> str:
    """Return what a table's stacks were scored on or trained for, whichever differs."""
    parts = []
    if len({text for text, _ in tables}) > 1:
        first = next((record for stack in stacks for record in stack.all_records if scored(record)), None)
        parts.append(f"scored on {scored_in_words(first)}" if first else "not scored yet")
    if len({kind for _, kind in tables if kind}) > 1:
        parts.append(f"a training budget of {kinds(stacks[0]) or 'unknown kind'}")
    return "; ".join(parts)


def _in_order(found: list[StackRuns], stacks: Sequence[StackRuns]) -> list[StackRuns]:
    return [stack for stack in stacks if any(stack is each for each in found)]
