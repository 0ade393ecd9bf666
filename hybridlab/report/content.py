"""What a report says, in the order it says it, before it is a terminal's, a Markdown file's or a page's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

Row = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table: columns of words, then columns of numbers. In a title or a cell, a line break is where it may be cut."""

    caption: str
    text: Row
    numbers: Row = ()
    bodies: tuple[tuple[Row, ...], ...]  # rows that belong together
    note: str = ""


class Picture(NamedTuple):
    """The name of a figure, and what it shows."""

    name: str
    caption: str


class Fact(NamedTuple):
    """A number of the headline."""

    label: str
    value: str  # on a second line, its interval


class LayerBox(NamedTuple):
    """A layer in the drawing of a stack."""

    mixer: str
    kind: int  # the mixer's place among the mixers of the stack


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report."""

    title: str
    text: Row = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    code: str = ""
    detail: bool = False  # left out of the terminal
    folded: bool = False  # closed on the page until it is asked for


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report on one stack or on several: the same content in the terminal, as Markdown and as a page."""

    title: str
    subtitle: str
    warnings: Row
    statement: str  # what the numbers rest on
    headline: tuple[Fact, ...]
    sections: tuple[Section, ...]
    layers: tuple[tuple[str, tuple[LayerBox, ...]], ...]  # by layer group, if there is but one stack
    figures: Callable[[], "dict[str, Figure]"]  # drawn when asked for: matplotlib takes a second to import

    def terminal(self, console: "Console") -> None:
        """Print the report; its tables fit 100 columns."""
        from hybridlab.report.render.terminal import show

        show(self, console)

    def markdown(self) -> str:
        """Return the report as Markdown, with GitHub's tables."""
        from hybridlab.report.render.markdown import markdown

        return markdown(self)

    def html(self) -> str:
        """Return the report as one self-contained page."""
        from hybridlab.report.render.html import page

        return page(self)
