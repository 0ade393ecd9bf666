"""`hybridlab measures`: every measure, what it means, and where it comes from."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hybridlab.config import measure_files
from hybridlab.evaluation.describe import ALWAYS
from hybridlab.evaluation.measures.base import Measure
from hybridlab.evaluation.measures.build import find_measure, load_measure
from hybridlab.records.description import MeasureDescription


def all_measures(folders: Sequence[Path] | None = None) -> Iterator[type[Measure]]:
    """Yield the classes of the named measures, over the search path, and then those of what every
    run measures.
    """
    named = [find_measure(load_measure(file), f"measures.{name}") for name, file in measure_files(folders).items()]
    yield from named
    yield from (measure for measure in ALWAYS if measure not in named)


def show_measures() -> None:
    """Print every measure: name, unit, which direction is better, definition, source."""
    table = Table(title="measures", show_lines=True)
    for column in ("name", "unit", "better", "definition, and the source"):
        table.add_column(column, overflow="fold", no_wrap=column != "definition, and the source")
    for measure in all_measures():
        described = measure.describe()
        what = Text.assemble(described.definition, "\n", (described.source, "dim"))
        table.add_row(measure.name, described.unit, described.better or "–", what)
    Console().print(table)


def markdown(folders: Sequence[Path] | None = None) -> str:
    """Return the table of all measures for docs/measures.md."""
    lines = ["| measure | unit | better | definition | source |", "|---|---|---|---|---|"]
    lines += [_row(measure.name, measure.describe()) for measure in all_measures(folders)]
    return "\n".join(lines) + "\n"


def _row(name: str, described: MeasureDescription) -> str:
    cells = (f"`{name}`", described.unit, described.better or "–", described.definition, described.source)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(markdown(), end="")
