"""A sweep's table beside a paper's figures, and whether each claim holds."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from textwrap import fill

from hybridlab.config import sweep_files
from hybridlab.records.archive import SUFFIX, pack
from hybridlab.records.found import read_found
from hybridlab.records.record import RunRecord
from hybridlab.report.content import Picture, PlottedRow, Report, Section, Table, TableFigure
from hybridlab.report.runs.budget import training_in_words
from hybridlab.report.runs.choices import distinguishing_keys
from hybridlab.report.runs.comparable import text_of
from hybridlab.report.runs.evaluations import left_out, with_one_evaluation
from hybridlab.report.runs.format import NOT_MEASURED, duration, p_value, plain, setting, with_interval
from hybridlab.report.runs.scored import scored_in_words
from hybridlab.report.runs.stack_runs import StackRuns, by_stack
from hybridlab.report.runs.statistics import Estimate
from hybridlab.report.sections.by_group import group_tables
from hybridlab.report.sections.not_measured import missing_section
from hybridlab.report.sections.training_note import with_training
from hybridlab.report.sections.tuning import tuning_section
from hybridlab.report.sections.unfinished import unfinished_section
from hybridlab.report.sections.warnings import warnings
from hybridlab.report.sweeps.claims import FAILS, HOLDS, IDENTICAL, NOT_TESTABLE, UNDECIDED, Decision, decide
from hybridlab.report.sweeps.selection import unknown_names
from hybridlab.report.sweeps.spec import GRADES, Published, Sweep, read_sweep

LINE = 24  # characters of a line in a verdict's cell
MARK = "†"  # of a figure that rests on a single transcription


def reference(name: str) -> Path:
    """Return the path of a sweep's reference records, an archive beside its file."""
    return sweep_files()[name].with_name(f"{name}{SUFFIX}")


def runs_of(name: str, runs: str | Path | None = None) -> Path:
    """Return the path of a sweep's runs: as given, else its reference records, else runs/<name>."""
    known = reference(read_sweep(name).name)
    return Path(runs) if runs else known if known.is_file() else Path("runs") / name


def sweep_report(name: str, runs: str | Path | None = None) -> Report:
    """Report on a sweep's runs, by default those of `runs_of`."""
    return of_sweep(read_sweep(name), read_found(runs_of(name, runs)))


def keep_reference(name: str, runs: str | Path) -> Path:
    """Pack runs into the sweep's archive of reference records, without the name of their folder."""
    records = [replace(record, config=record.config | {"runs": "runs"}) for record in read_found(runs)]
    return pack(records, reference(name))


def of_sweep(sweep: Sweep, records: Sequence[RunRecord]) -> Report:
    """Return the table of a sweep and its claims."""
    stacks = by_stack(with_one_evaluation(records), sweep.tuned)
    rows = _rows(sweep, stacks)
    unused = len(stacks) - len(rows)
    terms = (term.number for claim in sweep.claims for each in claim.inequalities for term in each.form.terms)
    beside = unknown_names(chain(sweep.cells.values(), terms), stacks)
    beside += [f"Stacks that are in no row of the table: {unused}."] if unused else []
    picture = Picture("table", "Measured numbers with 95 % intervals, and the paper's figures.")
    sections = [Section(title="Table", tables=(cells_table(sweep, stacks),), pictures=(picture,))]
    if sweep.claims:
        sections.append(Section(title="Claims", tables=claims_tables(sweep, decide(sweep.claims, stacks))))
    if sweep.discussion:
        sections.append(Section(title="Discussion", text=(sweep.discussion,)))
    keys = distinguishing_keys(rows)
    if by_group := group_tables(rows, keys):
        sections.append(Section(title="By layer group", tables=tuple(by_group), detail=True))
    sections += tuning_section(rows, keys)
    sections = [*with_training(sections, training_in_words(rows)), *unfinished_section(stacks), *missing_section(rows)]
    return Report(
        title=f"{sweep.name}: {sweep.title}",
        subtitle=made_on(records),
        warnings=(
            *([sweep.note] if sweep.note else []),
            *beside,
            *_other_text(sweep, stacks),
            *left_out(records),
            *warnings(rows),
        ),
        statement=training_in_words(rows),
        headline=(),
        sections=tuple(sections),
        layers=(),
        figures=_figure(sweep, stacks),
    )


def cells_table(sweep: Sweep, stacks: Sequence[StackRuns]) -> Table:
    """Return a row per cell of the sweep's table: paper, measured, interval, n, tuned values."""
    several = _has_columns(sweep)
    tuned = [key for key in sweep.tuned if any(key in stack.tuning.values for stack in stacks)]
    bodies: dict[str, list[tuple[str, ...]]] = {}
    for (row, column), selection in sweep.cells.items():
        stack = selection.stack(stacks)
        found = stack.find(selection.measure, **selection.where) if stack else None
        chosen = (setting(stack.tuning.values.get(key, NOT_MEASURED)) if stack else NOT_MEASURED for key in tuned)
        paper = paper_figure(sweep.figure((row, column)), [sweep.source((row, column))])
        line = (row, *([column] if several else []), *chosen, paper, *measured(found))
        bodies.setdefault(row if several else "", []).append(line)
    measures = dict.fromkeys(selection.measure for selection in sweep.cells.values())
    return Table(
        caption=f"The {_listed(measures)} of each row: the paper's figure, and the mean over n seeds with its 95 % "
        "interval (Student's t; over one seed's documents where n says so).",
        text=("Row", *(["Column"] if several else []), *(key.rpartition(".")[2] for key in tuned)),
        numbers=("Paper", "Measured", "95 % interval", "n"),
        bodies=tuple(map(tuple, bodies.values())),
        note=_sources(sweep),
    )


def claims_tables(sweep: Sweep, decisions: Sequence[Decision]) -> tuple[Table, ...]:
    """Return a row per claim, its weakest inequality, in the paper and measured, and the verdict;
    then the preconditions that are not met.
    """
    unmet = tuple(
        (decision.claim.words, each.requires, each.row, each.measured, each.needed)
        for decision in decisions
        for each in decision.unmet
    )
    if not unmet:
        return (claims_table(sweep, decisions),)
    table = Table(
        caption="Preconditions that are not met: of these claims the runs can tell nothing.",
        text=("Claim", "Precondition", "Row"),
        numbers=("Measured", "Needed"),
        bodies=(unmet,),
    )
    return claims_table(sweep, decisions), table


def claims_table(sweep: Sweep, decisions: Sequence[Decision]) -> Table:
    """Return a row per claim: its weakest inequality, in the paper and measured; the verdict."""
    rows = []
    for decision in decisions:
        form = decision.weakest.form
        sources = [sweep.source(term.cell) for term in form.terms if term.cell]
        number, interval, num_seeds = measured(decision.measured)
        together = measured(decision.together)[1] if decision.word != NOT_TESTABLE else NOT_MEASURED
        rows.append(
            (
                decision.claim.words,
                form.words,
                paper_figure(form.published(sweep.figure), sources),
                number,
                _with_p(interval, decision.p_alone),
                num_seeds,
                _with_p(together, decision.p),
                _seeds(decision),
                _verdict(decision),
            )
        )
    counted = Counter(decision.word for decision in decisions)
    return Table(
        caption="Claims, each with the difference that decides it, paired by seed.",
        text=("Claim", "Difference"),
        numbers=(
            "Paper",
            "Measured",
            "95 % interval,\np alone",
            "n",
            "Interval and p\nfor all claims",
            "Seeds\nfor 80 %",
            "Claim\nholds?",
        ),
        bodies=(tuple(rows),),
        note=f"Two-sided paired t tests over seeds; Holm's correction for the m = {len(rows)} claims of this table, "
        '5 % for all together, "holds" and "does not hold" alike. '
        "Alone: Student's 95 % interval of this difference, and its p; they agree, and are not what the verdict uses. "
        "For all claims: the interval at 1 − 10 %/k, at which Holm's method tests the claim (k = 2m for the smallest "
        "p, 2m − 1 for the next, ..., as each claim may be shown or its opposite), and the corrected p; the claim is "
        "decided exactly where this p is below 0.05, and this interval beyond the claim's bound. "
        "A claim of several inequalities holds if each does. Undecided: neither the claim nor its opposite is shown. "
        "Seeds: with how many, those at hand included, it would be decided with a probability of 80 % if the "
        "observed difference and spread were the true ones, and the time that the further ones would take. "
        f"Not testable here: a precondition is not met. {_tally(counted)} "
        "The paper's figures do not enter the tests.",
    )


def _with_p(interval: str, p: float) -> str:
    return interval if interval == NOT_MEASURED else f"{interval}\np {p_value(p)}"


def _seeds(decision: Decision) -> str:
    """Return how many seeds would decide an undecided claim, and what the further ones cost."""
    if decision.word != UNDECIDED or decision.together is None or decision.together.low is None:
        return NOT_MEASURED
    if decision.seeds is None:
        return "> 100"
    return f"{decision.seeds}\n+{duration(decision.seconds)}" if decision.seconds else str(decision.seeds)


def _verdict(decision: Decision) -> str:
    """Return the verdict; of a claim that is not testable, with the number, of identical stacks
    with the reason.
    """
    if not decision.why:
        return decision.word
    return f"{decision.word}\n{fill(f'({decision.why})', LINE, break_long_words=False)}"


def _tally(counted: Counter[str]) -> str:
    """Return how many claims have each verdict."""
    words = {HOLDS: "hold", FAILS: "do not", UNDECIDED: "are undecided"}
    words |= {IDENTICAL: "compare identical stacks", NOT_TESTABLE: "are not testable here"}
    return f"Of these claims, {', '.join(f'{counted[word]} {name}' for word, name in words.items() if counted[word])}."


def _rows(sweep: Sweep, stacks: Sequence[StackRuns]) -> list[StackRuns]:
    """Return the stacks of the table under their rows' names, with the column's if ambiguous."""
    cells = {cell: selection.stack(stacks) for cell, selection in sweep.cells.items()}
    found = []
    for stack in stacks:
        its = [cell for cell, other in cells.items() if other is stack]
        if its:
            row, column = its[0]
            several = any(
                name == row and other is not None and other is not stack for (name, _), other in cells.items()
            )
            found.append(replace(stack, name=f"{row}, {column}" if several else row))
    return found


def _other_text(sweep: Sweep, stacks: Sequence[StackRuns]) -> list[str]:
    """Return a sentence for each column whose rows do not compare, as they were scored on other
    text."""
    columns: dict[str, list[tuple[str, StackRuns]]] = {}
    for (row, column), selection in sweep.cells.items():
        stack = selection.stack(stacks)
        if stack is not None and text_of(stack):
            columns.setdefault(column, []).append((row, stack))
    found = []
    for column, rows in columns.items():
        texts: dict[str, list[tuple[str, StackRuns]]] = {}
        for row, stack in rows:
            texts.setdefault(text_of(stack), []).append((row, stack))
        if len(texts) > 1:
            each = (f"{', '.join(row for row, _ in its)}: {scored_in_words(its[0][1].first)}" for its in texts.values())
            which = f"column {column}" if column else "table"
            found.append(f"The rows of the {which} were scored on other text and do not compare: {'; '.join(each)}.")
    return found


def _figure(sweep: Sweep, stacks: Sequence[StackRuns]) -> TableFigure:
    """Return the rows to plot, a panel per column; labels have no unit, as a paper's may differ."""
    several = _has_columns(sweep)
    panels: dict[str, list[PlottedRow]] = {}
    for (row, column), selection in sweep.cells.items():
        stack = selection.stack(stacks)
        found = stack.find(selection.measure, **selection.where) if stack else None
        title = _titled(column, selection.measure) if several else selection.measure
        panels.setdefault(title, []).append(PlottedRow(row, sweep.figure((row, column)), found))
    return TableFigure({title: tuple(rows) for title, rows in panels.items()})


def _has_columns(sweep: Sweep) -> bool:
    return len({column for _, column in sweep.cells}) > 1


def _titled(column: str, measure: str) -> str:
    """Return a column's name, preceded by its measure unless the name contains it."""
    return column if measure in column.lower() else f"{measure}, {column}"


def _listed(measures: Iterable[str]) -> str:
    """Return an enumeration, e.g. `nll, the knockout and the reach`."""
    *others, last = measures
    return f"{', the '.join(others)} and the {last}" if others else last


def measured(found: Estimate | None) -> tuple[str, str, str]:
    """Return the cells of a number: its value, its interval, n."""
    if found is None:
        return NOT_MEASURED, NOT_MEASURED, "0"
    number, _, interval = with_interval(found).partition("\n")
    documents = " documents" if found.interval.endswith("documents") else ""
    return number, interval or NOT_MEASURED, f"{found.n or 1}{documents}"


def paper_figure(figure: float | None, sources: Sequence[Published | None]) -> str:
    """Return a paper's figure, marked if it rests on a single transcription."""
    if figure is None:
        return NOT_MEASURED
    return plain(figure) + MARK * any(source is not None and source.grade == "C" for source in sources)


def made_on(records: Sequence[RunRecord]) -> str:
    """Return the number of runs and seeds, and the machines."""
    machines = dict.fromkeys(str(record.hardware.get("gpu", "CPU")) for record in records)
    seeds = {record.seed for record in records}
    return f"{len(records)} runs, {len(seeds)} seeds, on {' and '.join(machines)}"


def _sources(sweep: Sweep) -> str:
    """Cite the papers' figures."""
    cited = []
    for source in sweep.published:
        mark = f", marked {MARK}" if source.grade == "C" else ""
        about = (source.source, source.csv, f"grade {source.grade}: {GRADES[source.grade]}{mark}")
        cited.append(f"{source.paper} ({'; '.join(part for part in about if part)})")
    return f"Paper: {'; '.join(cited)}." if cited else ""
