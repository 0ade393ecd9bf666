"""Tables of measured numbers: a row per layer group (mixer, part, layer, pair) or per bucket."""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple

from hybridlab.records.measurement import GROUPINGS
from hybridlab.report.content import Picture, Row, Section, Table
from hybridlab.report.runs.format import count, significant, with_interval
from hybridlab.report.runs.stack_runs import Filter, StackRuns
from hybridlab.report.runs.statistics import Estimate
from hybridlab.report.runs.titles import heading

Show = Callable[[Estimate | None], str]
signed: Show = partial(with_interval, signed=True)
_OF_PART = {"": "", "mixer": "\nof mixers", "channel": "\nof channel\nmixers"}


class Column(NamedTuple):
    """A column of numbers: what is measured, and how it is shown."""

    title: str
    measure: str
    where: dict[str, Filter] = {}  # noqa: RUF012 - never changed
    show: Show = with_interval
    meaning: str = ""  # for the note of the table


def section_of(title: str, table: Table | None, *pictures: Picture, detail: bool = False) -> list[Section]:
    """Return the section of a table, or nothing if there is no table."""
    return [Section(title=title, tables=(table,), pictures=pictures, detail=detail)] if table else []


def three_digits(found: Estimate | None) -> str:
    """Format a number to three digits, without its interval."""
    return significant(found.value if found else None, 3)


def tokens(found: Estimate | None) -> str:
    """Format the number of tokens behind an estimate."""
    return count(found.tokens if found else None)


def plain(found: Estimate | None) -> str:
    """Format a count without its interval."""
    return count(found.value if found else None)


def columns_of(stack: StackRuns, groupings: Sequence[str], but: Collection[str] = ()) -> list[Column]:
    """Return a column per measure and changed part that was measured under these groupings.

    Measures in `but` are left out, as are measurements at a limited look-back (`block`) or in the
    buckets of a slice.
    """
    columns = []
    for name, found in stack.measures.items():
        taken = {
            part: None
            for grouping in groupings
            for part in stack.values(name, "part", grouping=grouping, slice="", block=None)
        }
        for part in taken if name not in but else ():
            where: dict[str, Filter] = {"part": part, "block": None}
            words = heading(stack.measures, name) + _OF_PART[part] if part else stack.measures[name].title or name
            meaning = f"{heading(stack.measures, name)}: {found.definition}."
            columns.append(Column(words, name, where, _shown(found.unit, part), meaning))
    return columns


def by_group(
    stack: StackRuns, caption: str, columns: Sequence[Column], groupings: Sequence[str] = GROUPINGS
) -> Table | None:
    """Return a row for each group with any measurement; columns without any are left out."""

    def groups(column: Column, grouping: str) -> list[str]:
        return stack.values(column.measure, "group", grouping=grouping, slice="", **column.where)

    measured = [column for column in columns if any(groups(column, grouping) for grouping in groupings)]
    bodies = []
    for grouping in groupings:
        named = dict.fromkeys(group for column in measured for group in groups(column, grouping))
        bodies.append(tuple((in_words(grouping, group), *_cells(stack, measured, grouping, group)) for group in named))
    return _table(caption, "Layers", measured, [body for body in bodies if body])


def by_bucket(stack: StackRuns, slice: str, caption: str, columns: Sequence[Column], title: str) -> Table | None:
    """Return a row for each bucket of a slice; a column that was not broken down by it is left out.

    `None` if there are fewer than two buckets: one says no more than the whole.
    """
    measured = [column for column in columns if stack.values(column.measure, "bucket", slice=slice, **column.where)]
    buckets = dict.fromkeys(
        bucket for column in measured for bucket in stack.buckets_of(slice, column.measure, **column.where)
    )
    rows = []
    for bucket in stack.in_order(slice, buckets):
        cells = (
            column.show(stack.find(column.measure, slice=slice, bucket=bucket, **column.where)) for column in measured
        )
        rows.append((bucket.replace("-", "–"), *cells))
    return _table(caption, title, measured, [tuple(rows)]) if len(rows) > 1 else None


def in_words(grouping: str, group: str) -> str:
    """Name the layers of a measurement: a single layer by its index, others by their name."""
    return {"layer": f"layer {group}", "stack": "whole stack"}.get(grouping, group)


def _shown(unit: str, part: str) -> Show:
    """Return the format of a column: counts and shares have no interval, effects have a sign."""
    if unit == "tokens":
        return plain
    if unit == "1":
        return three_digits
    return signed if part else with_interval


def _cells(stack: StackRuns, columns: Sequence[Column], grouping: str, group: str) -> list[str]:
    return [
        column.show(stack.find(column.measure, grouping=grouping, group=group, **column.where)) for column in columns
    ]


def _table(caption: str, title: str, columns: Sequence[Column], bodies: list[tuple[Row, ...]]) -> Table | None:
    if not columns or not any(bodies):
        return None
    numbers = tuple(column.title for column in columns)
    note = " ".join(dict.fromkeys(column.meaning for column in columns if column.meaning))
    return Table(caption=caption, text=(title,), numbers=numbers, bodies=tuple(bodies), note=note)
