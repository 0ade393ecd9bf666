"""The tables of each stack of a comparison, folded."""

from hybridlab.report.content import Section
from hybridlab.report.runs.choices import distinguishing_keys, label
from hybridlab.report.runs.headline import ranked
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.sections import by_group, plan, reach, slices
from hybridlab.report.sections.positions import position_tables
from hybridlab.report.sections.quality import quality_table

ORDER = 135


def comparison(stacks: list[StackRuns], base: StackRuns) -> list[Section]:
    """Return a section for each stack that finished, the best first."""
    keys = distinguishing_keys(stacks)
    return [_details(stack, keys) for stack in ranked(stacks) if stack.finished]


def _details(stack: StackRuns, keys: list[str]) -> Section:
    parts = [part for module in (by_group, reach, slices, plan) for part in module.section(stack)]
    tables = (quality_table(stack), *position_tables(stack), *(table for part in parts for table in part.tables))
    return Section(title=label(stack, keys), tables=tables, detail=True, folded=True)
