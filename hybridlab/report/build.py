"""From a folder of runs to its report."""

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, cast

from hybridlab.records.atomic import write_text
from hybridlab.records.found import read_found
from hybridlab.records.record import RunRecord
from hybridlab.report import overview, sections
from hybridlab.report.content import (
    ComparedStacks,
    ComparisonFigures,
    Report,
    Section,
    StackFigures,
    of_table,
)
from hybridlab.report.render import markdown, terminal
from hybridlab.report.runs.budget import training_in_words
from hybridlab.report.runs.choices import choose_base
from hybridlab.report.runs.comparable import Comparable, comparable, why_apart
from hybridlab.report.runs.evaluations import left_out, with_one_evaluation
from hybridlab.report.runs.stack_runs import StackRuns, by_stack
from hybridlab.report.sections.training_note import with_training
from hybridlab.report.sections.warnings import warnings
from hybridlab.stdout import Printable

if TYPE_CHECKING:
    from rich.console import Console


def report(directory: str | Path, base: str | None = None) -> Report:
    """Report on the runs below a folder or in an archive; `base` is a stack, e.g. "early=full"."""
    return of_records(read_found(directory), base)


def of_records(records: Sequence[RunRecord], base: str | None = None) -> Report:
    """Report on the runs of these records, in a table for each text that they were scored on."""
    taken = with_one_evaluation(records)
    stacks = by_stack(taken)
    chosen = choose_base(stacks, base)
    names = ", ".join(dict.fromkeys(record.name for record in records))
    one = _shown(chosen) if len(stacks) == 1 else None
    num_runs = f"{len(records)} runs" if len(records) > 1 else f"run {records[0].run_id}, seed {records[0].seed}"
    tables = comparable(stacks)
    compared = [ComparedStacks(tuple(table.stacks), _base(table.stacks, chosen)) for table in tables]
    careful = dict.fromkeys(warning for table in tables for warning in warnings(table.stacks))
    return Report(
        title=names,
        subtitle=f"{overview.summary(one)} — {num_runs}" if one else f"{len(stacks)} stacks, {num_runs}",
        warnings=(*_not_finished(one), *why_apart(tables), *left_out(records), *careful),
        statement=f"{overview.scored((one or chosen).first)} {training_in_words(stacks)}".strip(),
        headline=overview.facts(one) if one else (),
        sections=tuple(sections_of(one) if one else sections_of_comparisons(tables, compared)),
        layers=overview.drawing(one) if one else (),
        figures=StackFigures(one) if one else ComparisonFigures(tuple(compared)),
    )


def sections_of(stack: StackRuns) -> list[Section]:
    """Return the sections of a report on one stack, of all modules with `section`."""
    found = [found for module in _modules_with("section") for found in module.section(stack)]
    return with_training(found, training_in_words([stack]))


def sections_of_comparison(stacks: list[StackRuns], base: StackRuns) -> list[Section]:
    """Return the sections of a report on several comparable stacks, of all modules with
    `comparison`.
    """
    return sections_of_comparisons([Comparable(stacks, "")], [ComparedStacks(tuple(stacks), base)])


def sections_of_comparisons(tables: Sequence[Comparable], compared: Sequence[ComparedStacks]) -> list[Section]:
    """Return the sections of each table of stacks, then those about all runs.

    What modules with `ACROSS` show does not compare numbers of different text.
    """
    if len(tables) == 1:
        stacks, base = list(compared[0].stacks), compared[0].base
        found = [found for module in _modules_with("comparison") for found in module.comparison(stacks, base)]
        return with_training(found, training_in_words(stacks))
    sections: list[Section] = []
    modules = _modules_with("comparison")
    for number, (table, (stacks, base)) in enumerate(zip(tables, compared, strict=True), start=1):
        sections.append(Section(title=f"Table {number}", text=(f"Table {number}: the stacks {table.words}.",)))
        own = [
            found
            for module in modules
            if not hasattr(module, "ACROSS")
            for found in module.comparison(list(stacks), base)
        ]
        sections += with_training([_numbered(section, number) for section in own], training_in_words(stacks))
    every = [stack for table in tables for stack in table.stacks]
    across = (module for module in modules if hasattr(module, "ACROSS"))
    return [*sections, *(found for module in across for found in module.comparison(every, compared[0].base))]


def as_markdown(report: Report) -> str:
    """Return the report as Markdown, with GitHub's tables."""
    return markdown.markdown(report)


def as_html(report: Report) -> str:
    """Return the report as one self-contained page, with its figures."""
    from hybridlab.report.figures.select import draw  # matplotlib takes a second to import
    from hybridlab.report.render.html import page

    return page(report, draw(report.figures))


def show(report: Report, console: "Console") -> None:
    """Print the report; its tables fit 100 columns."""
    terminal.show(report, console)


def write(report: Report, directory: str | Path, name: str = "report") -> list[Path]:
    """Write <name>.md and <name>.html into `directory`, whole or not at all; return their paths."""
    pages = {Path(directory) / f"{name}.md": as_markdown(report), Path(directory) / f"{name}.html": as_html(report)}
    for path, text in pages.items():
        write_text(path, text)
    return list(pages)


def print_and_write(directory: str | Path, base: str | None = None) -> None:
    """Print the report on `directory` and write it there; of an archive, only print it.

    If the folder has the name of a sweep with a table, that table follows.
    """
    from hybridlab.report.sweeps.spec import declares_table

    found = report(directory, base)
    written = [(found, _written(found, directory, "report"))]
    if declares_table(name := Path(directory).resolve().name):
        written.append(_sweep_written(name, directory))
    for each, paths in written:
        _print(each, paths)


def print_sweep(name: str, runs: str | Path | None = None, *, keep: bool = False) -> None:
    """Print a sweep's table and write it into its folder; `keep` makes its runs the reference."""
    _print(*_sweep_written(name, runs, keep=keep))


def _sweep_written(name: str, runs: str | Path | None, *, keep: bool = False) -> tuple[Report, list[Path]]:
    """Write a sweep's table into its folder, before anything is printed."""
    from hybridlab.report.sweeps.table import keep_reference, runs_of, sweep_report

    found = runs_of(name, runs)
    shown = sweep_report(name, found)
    return shown, [*_written(shown, found, "sweep"), *([keep_reference(name, found)] if keep else [])]


def _numbered(section: Section, number: int) -> Section:
    """Return a section of one of several tables, whose figures have names of their own."""
    pictures = tuple(picture._replace(name=of_table(picture.name, number)) for picture in section.pictures)
    return replace(section, title=f"{section.title}, table {number}", pictures=pictures)


def _shown(stack: StackRuns) -> StackRuns:
    """Return the only stack of a report, with the numbers of truncated runs if none finished."""
    return stack if stack.finished else replace(stack, counts=("finished", "truncated"))


def _base(stacks: Sequence[StackRuns], chosen: StackRuns) -> StackRuns:
    """Return the chosen base, in a table without it the first stack that finished."""
    return chosen if any(stack is chosen for stack in stacks) else choose_base(stacks, None)


def _modules_with(function: str) -> list[ModuleType]:
    """Return the modules of `hybridlab.report.sections` that define `function`, by their ORDER."""
    names = [found.name for found in pkgutil.iter_modules(sections.__path__)]
    modules = [importlib.import_module(f"{sections.__name__}.{name}") for name in names]
    return sorted((module for module in modules if hasattr(module, function)), key=lambda module: module.ORDER)


def _written(found: Report, directory: str | Path, name: str) -> list[Path]:
    """Write the report into its folder, before anything is printed; an archive has no folder."""
    return write(found, directory, name) if Path(directory).is_dir() else []


def _print(found: Report, paths: Sequence[Path]) -> None:
    """Print a report, and where it was written; what the terminal cannot encode is replaced."""
    from rich.console import Console

    file = cast(IO[str], Printable())
    console = Console(file=file)
    console = console if console.is_terminal else Console(width=100, file=file)
    show(found, console)
    for path in paths:
        console.print(str(path), highlight=False, soft_wrap=True)


def _not_finished(stack: StackRuns | None) -> list[str]:
    """Name the runs of the only stack that did not finish, with their reasons."""
    return [
        f"Run {record.run_id}, seed {record.seed}: {record.status}{f', {record.reason}' if record.reason else ''}."
        for record in (stack.all_records if stack else ())
        if record.status != "finished"
    ]
