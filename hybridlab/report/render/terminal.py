"""The report in a terminal."""

from typing import TYPE_CHECKING

from hybridlab.report.content import Report, Row, Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text


def show(report: Report, console: "Console") -> None:
    """Print warnings, the headline and the tables of every section that is not a detail."""
    from rich.text import Text

    console.print(Text(report.title, style="bold"))
    console.print(Text(report.subtitle))
    for warning in report.warnings:
        console.print(Text(f"! {warning}", style="yellow"))
    if report.headline:
        console.print()
        console.print(_headline(report))
        console.print(Text(report.statement, style="dim"))
    for section in (section for section in report.sections if not section.detail):
        for paragraph in section.text:
            console.print()
            console.print(Text(paragraph))
        for table in section.tables:
            console.print()
            console.print(Text(table.caption, style="bold"))
            console.print(_fitting(table, console))
            if table.note:
                console.print(Text(table.note, style="dim"))


def _headline(report: Report) -> "RichTable":
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable.grid(padding=(0, 3, 0, 0))
    rows = [[Text(fact.label, style="dim"), *map(Text, _lines(fact.value))] for fact in report.headline]
    for start in range(0, len(rows), 3):
        block = rows[start : start + 3]
        for cells in zip(*block, strict=True):
            if any(cell.plain for cell in cells):
                grid.add_row(*cells)
    return grid


def _lines(value: str) -> tuple[str, str]:
    number, _, interval = value.partition("\n")
    return number, interval


def _fitting(table: Table, console: "Console") -> "RichTable":
    """Return the table with wide gaps if they fit, else narrow ones, else with broken intervals."""
    from rich.measure import Measurement

    def fits(drawn: "RichTable", *, wrapped: bool) -> bool:
        width = Measurement.get(console, console.options.update(width=10_000), drawn)
        return (width.minimum if wrapped else width.maximum) <= console.width

    wide, narrow = _rich(table, gap=2), _rich(table, gap=1)
    if fits(wide, wrapped=False):
        return wide
    return narrow if fits(narrow, wrapped=True) else _rich(table, gap=1, wrap=True)


def _rich(table: Table, gap: int, *, wrap: bool = False) -> "RichTable":
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(box=box.SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), pad_edge=False, show_edge=False)
    for title in table.text:
        grid.add_column(Text(title), vertical="top", overflow="fold")
    rows = [row for body in table.bodies for row in body]
    for index, title in enumerate(table.numbers, start=len(table.text)):
        longest = max((len(line) for row in rows for line in row[index].split("\n")), default=0)
        least = None if wrap else longest  # rich ignores no_wrap when it measures a table
        grid.add_column(Text(title), justify="right", overflow="fold", no_wrap=not wrap, min_width=least)
    for body in table.bodies:
        for row in body:
            grid.add_row(*_cells(row))
        grid.add_section()
    return grid


def _cells(row: Row) -> "list[Text]":
    from rich.text import Text

    cells: list[Text] = []
    for cell in row:
        number, interval = _lines(cell)
        text = Text(number)
        if interval:
            text.append(f"\n{interval}", style="dim")
        cells.append(text)
    return cells
