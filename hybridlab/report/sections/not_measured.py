"""The measures that have no value, with the reason."""

from collections.abc import Sequence

from hybridlab.report.content import Section, Table
from hybridlab.report.runs.choices import distinguishing_keys, label
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.sections.grids import section_of

ORDER = 123
ACROSS = True  # shown once for all runs, whatever they were scored on


def section(stack: StackRuns) -> list[Section]:
    """Return the measures that the runs of the only stack lack."""
    return missing_section([stack])


def comparison(stacks: list[StackRuns], base: StackRuns) -> list[Section]:
    """Return the measures that the runs of each stack lack."""
    return missing_section(stacks)


def missing_section(stacks: Sequence[StackRuns]) -> list[Section]:
    """Return a row for each measure that a run has no value of, if there are any."""
    keys = distinguishing_keys(stacks)
    rows = tuple(
        (label(stack, keys), str(record.seed), measure, f"not measured: {reason}", record.run_id)
        for stack in stacks
        for record in stack.all_records
        for measure, reason in record.missing.items()
    )
    columns = ("Stack", "Seed", "Measure", "Reason", "Run")
    table = Table(caption="Measures without a value: no mean and no table has them.", text=columns, bodies=(rows,))
    return section_of("Not measured", table if rows else None)
