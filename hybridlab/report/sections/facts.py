"""Where the numbers come from: the runs, what they ran on, the resolved configuration, what each measure means."""

import json
from typing import Any

from hybridlab.records.measures import MEASURES
from hybridlab.records.record import RunRecord
from hybridlab.report.content import Section, Table
from hybridlab.report.runs.format import setting, significant
from hybridlab.report.runs.stack_runs import StackRuns


def facts(stack: StackRuns) -> list[Section]:
    """Return the run facts, the measures' definitions and the configuration of a stack's first run."""
    config = json.dumps(stack.first.config, indent=2, ensure_ascii=False)
    return [
        Section(title="Runs", tables=(runs_table(stack.all_records), made_with(stack.first)), detail=True),
        Section(title="Measures", tables=(measures_table(stack),), detail=True, folded=True),
        Section(title="Resolved configuration", text=_of(stack.first), code=config, detail=True, folded=True),
    ]


def runs_table(records: tuple[RunRecord, ...]) -> Table:
    """Return a row for each run, however it ended."""
    rows = [
        (record.run_id, record.name, str(record.seed), record.status, record.reason or "–", record.created)
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
    """Return the definition of every measure that the report may show."""
    used = {row.measure for record in stack.records for row in record.measurements}
    rows = [(name, *measure) for name, measure in MEASURES.items() if name in used]
    return Table(caption="What was measured.", text=("Measure", "Unit", "Definition", "Source"), bodies=(tuple(rows),))


def flat(facts: dict[str, Any], under: str = "") -> dict[str, str]:
    """Return nested facts as dotted names and texts."""
    found: dict[str, str] = {}
    for key, fact in facts.items():
        found |= flat(fact, f"{under}{key}.") if isinstance(fact, dict) else {f"{under}{key}": setting(fact)}
    return found


def _of(record: RunRecord) -> tuple[str, ...]:
    return (f"Of run {record.run_id}, seed {record.seed}, schema {record.schema}.",)
