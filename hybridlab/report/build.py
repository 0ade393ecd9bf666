"""From a folder of runs to its report."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hybridlab.records.atomic import write_text
from hybridlab.records.found import read_found
from hybridlab.records.record import RunRecord
from hybridlab.report.content import Report
from hybridlab.report.runs.choices import choose_base
from hybridlab.report.runs.stack_runs import StackRuns, by_stack
from hybridlab.report.sections import one_stack, several_stacks
from hybridlab.report.sections.warnings import warnings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def report(directory: str | Path, base: str | None = None) -> Report:
    """Report on every run below `directory`, or in an archive; `base` chooses where swaps start, e.g. "early=full"."""
    return of_records(read_found(directory), base)


def of_records(records: Sequence[RunRecord], base: str | None = None) -> Report:
    """Report on some runs."""
    stacks = by_stack(records)
    chosen = choose_base(stacks, base)
    names = ", ".join(dict.fromkeys(record.name for record in records))
    one = chosen if len(stacks) == 1 else None
    num_runs = f"{len(records)} runs" if len(records) > 1 else f"run {records[0].run_id}, seed {records[0].seed}"
    return Report(
        title=names,
        subtitle=f"{one_stack.summary(one)} — {num_runs}" if one else f"{len(stacks)} stacks, {num_runs}",
        warnings=(*_not_finished(one), *warnings(stacks)),
        statement=one_stack.scored(chosen.first),
        headline=one_stack.headline(one) if one else (),
        sections=tuple(one_stack.sections(one) if one else several_stacks.sections(stacks, chosen)),
        layers=one_stack.drawing(one) if one else (),
        figures=lambda: _figures(stacks, chosen),
    )


def write(report: Report, directory: str | Path, name: str = "report") -> list[Path]:
    """Write <name>.md and <name>.html into `directory`, each whole or not at all; return them."""
    pages = {Path(directory) / f"{name}.md": report.markdown(), Path(directory) / f"{name}.html": report.html()}
    for path, text in pages.items():
        write_text(path, text)
    return list(pages)


def print_and_write(directory: str | Path, base: str | None = None) -> None:
    """Print the report on `directory`, and write it there; beside an archive nothing is written.

    A folder named after a sweep that declares a table ends with that.
    """
    from hybridlab.report.sweeps.spec import declares_table

    _show(report(directory, base), directory, "report")
    if declares_table(name := Path(directory).resolve().name):
        print_sweep(name, directory)


def print_sweep(name: str, runs: str | Path | None = None, *, keep: bool = False) -> None:
    """Print the table of a sweep and its claims, and write it into the folder; with `keep`, make its runs the reference."""
    from hybridlab.report.sweeps.table import keep_reference, runs_of, sweep_report

    found = runs_of(name, runs)
    _show(sweep_report(name, found), found, "sweep")
    if keep:
        print(keep_reference(name, found))


def _show(found: Report, directory: str | Path, name: str) -> None:
    from rich.console import Console

    console = Console()
    console = console if console.is_terminal else Console(width=100)
    found.terminal(console)
    for path in write(found, directory, name) if Path(directory).is_dir() else ():
        console.print(str(path), highlight=False, soft_wrap=True)


def _not_finished(stack: StackRuns | None) -> list[str]:
    """Say in a report on one stack which of its runs count for nothing, and why."""
    return [
        f"Run {record.run_id}, seed {record.seed}: {record.status}{f', {record.reason}' if record.reason else ''}."
        for record in (stack.all_records if stack else ())
        if record.status != "finished"
    ]


def _figures(stacks: list[StackRuns], base: StackRuns) -> "dict[str, Figure]":
    from hybridlab.report.figures import select as figures

    return figures.of_stack(stacks[0]) if len(stacks) == 1 else figures.of_stacks(stacks, base)
