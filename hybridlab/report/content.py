"""A report as plain data, in reading order; the renderers print, write and draw it."""

from dataclasses import dataclass
from typing import NamedTuple

from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.runs.statistics import Estimate

Row = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table: columns of words, then of numbers. Cells and headings are broken at line breaks."""

    caption: str
    text: Row
    numbers: Row = ()
    bodies: tuple[tuple[Row, ...], ...]  # rows that belong together
    note: str = ""


class Picture(NamedTuple):
    """The name of a figure, and its caption."""

    name: str
    caption: str


class Fact(NamedTuple):
    """A number of the headline."""

    label: str
    value: str  # with its interval on a second line


class LayerBox(NamedTuple):
    """A layer in the drawing of a stack."""

    mixer: str
    kind: int  # index of the mixer among the stack's kinds of mixer


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report."""

    title: str
    text: Row = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    code: str = ""
    detail: bool = False  # left out of the terminal
    folded: bool = False  # closed on the page until the reader opens it


class PlottedRow(NamedTuple):
    """A row of a sweep's table in its figure."""

    name: str
    paper: float | None
    measured: Estimate | None


class StackFigures(NamedTuple):
    """The data of the figures of one stack."""

    stack: StackRuns


class ComparedStacks(NamedTuple):
    """Stacks of one table, and the one that the others are compared with."""

    stacks: tuple[StackRuns, ...]
    base: StackRuns


class ComparisonFigures(NamedTuple):
    """The data of the figures that compare stacks, table by table."""

    tables: tuple[ComparedStacks, ...]


def of_table(name: str, number: int) -> str:
    """Return the name of a figure in the table of this number: that of the first has none.

    >>> of_table("stacks", 1), of_table("stacks", 2)
    ('stacks', 'stacks_2')
    """
    return name if number == 1 else f"{name}_{number}"


class TableFigure(NamedTuple):
    """The data of the figure of a sweep's table: rows by the label of their axis."""

    panels: dict[str, tuple[PlottedRow, ...]]


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report on one stack or several: the same in the terminal, as Markdown and as a page."""

    title: str
    subtitle: str
    warnings: Row
    statement: str  # which data the numbers were measured on
    headline: tuple[Fact, ...]
    sections: tuple[Section, ...]
    layers: tuple[tuple[str, tuple[LayerBox, ...]], ...]  # by layer group; empty for several stacks
    figures: StackFigures | ComparisonFigures | TableFigure
