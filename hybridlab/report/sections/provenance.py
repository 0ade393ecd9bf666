"""Provenance: the runs and machines, the definition of each measure, the configuration."""

import json

from hybridlab.records.record import RunRecord
from hybridlab.report.content import Section, Table
from hybridlab.report.runs.format import NOT_MEASURED, flat, significant
from hybridlab.report.runs.headline import ranked
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.runs.titles import heading

ORDER = 150
ACROSS = True  # shown once for all runs, whatever they were scored on
BETTER = {"lower": "lower is better", "higher": "higher is better", "": NOT_MEASURED}


def section(stack: StackRuns) -> list[Section]:
    """Return the runs of a stack, its measures and the configuration of its first run."""
    tables = (runs_table(stack.all_records), made_with(stack.first))
    return [Section(title="Runs", tables=tables, detail=True), *_folded(stack)]


def comparison(stacks: list[StackRuns], base: StackRuns) -> list[Section]:
    """Return the runs of every stack, and the base's measures and configuration."""
    tables = tuple(runs_table(stack.all_records) for stack in ranked(stacks))
    return [Section(title="Runs", tables=tables, detail=True, folded=True), *_folded(base)]


def runs_table(records: tuple[RunRecord, ...]) -> Table:
    """Return a row for each run, finished or not."""
    rows = [
        (record.run_id, record.name, str(record.seed), record.status, record.reason or NOT_MEASURED, record.created)
        for record in records
    ]
    return Table(
        caption="The runs.",
        text=("Run", "Name", "Seed", "Status", "Reason", "Created"),
        numbers=("Seconds",),
        bodies=(tuple((*row, significant(r.seconds, 3)) for row, r in zip(rows, records, strict=True)),),
    )


def made_with(record: RunRecord) -> Table:
    """Return commit, versions, machine and data of one run."""
    bodies = [flat({"commit": record.commit or "unknown"}), flat(record.versions), flat(record.hardware)]
    return Table(
        caption=f"What run {record.run_id} was made with.",
        text=("What", "Value"),
        bodies=tuple(tuple(body.items()) for body in bodies if body),
    )


def measures_table(stack: StackRuns) -> Table:
    """Return the description of every measure in the records."""
    rows = tuple(
        (name, heading(stack.measures, name), found.unit, found.definition, BETTER[found.better], found.source)
        for name, found in stack.measures.items()
    )
    text = ("Measure", "Heading", "Unit", "Definition", "Direction", "Source")
    return Table(caption="The measures.", text=text, bodies=(rows,))


def _folded(stack: StackRuns) -> list[Section]:
    record = stack.first
    config = json.dumps(record.config, indent=2, ensure_ascii=False)
    text = f"Of run {record.run_id}, seed {record.seed}, schema {record.schema}."
    return [
        Section(title="Measures", tables=(measures_table(stack),), detail=True, folded=True),
        Section(title="Resolved configuration", text=(text,), code=config, detail=True, folded=True),
    ]
