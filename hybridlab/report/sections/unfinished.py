"""The runs of several stacks that did not finish."""

from hybridlab.report.content import Section, Table
from hybridlab.report.runs.choices import distinguishing_keys, label
from hybridlab.report.runs.format import NOT_MEASURED
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.sections.grids import section_of

ORDER = 122
ACROSS = True  # shown once for all runs, whatever they were scored on


def comparison(stacks: list[StackRuns], base: StackRuns) -> list[Section]:
    """Return the runs that failed, diverged, stopped or still run."""
    return unfinished_section(stacks)


def unfinished_section(stacks: list[StackRuns]) -> list[Section]:
    """Return a row for each run that did not finish, with its reason, if there are any."""
    keys = distinguishing_keys(stacks)
    rows = [
        (label(stack, keys), str(record.seed), record.status, record.reason or NOT_MEASURED, record.run_id)
        for stack in stacks
        for record in stack.all_records
        if record.status != "finished"
    ]
    columns = ("Stack", "Seed", "Status", "Reason", "Run")
    table = Table(caption="Runs that are left out of every mean.", text=columns, bodies=(tuple(rows),))
    return section_of("Not finished", table if rows else None)
