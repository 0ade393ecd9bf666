"""Every further measure by layer group; of several stacks, what each layer group contributes."""

from typing import NamedTuple

from hybridlab.report.content import Section, Table
from hybridlab.report.runs.choices import distinguishing_keys, short_names, value
from hybridlab.report.runs.format import how, with_interval
from hybridlab.report.runs.headline import ranked
from hybridlab.report.runs.stack_runs import Filter, StackRuns
from hybridlab.report.sections.grids import Column, Show, by_group, columns_of, plain, signed
from hybridlab.report.sections.quality import SHOWN

ORDER = 20
GROUPINGS = ("group", "mixer", "part")


class Compared(NamedTuple):
    """A measure by which the layer groups of stacks are compared."""

    words: str
    measure: str
    where: dict[str, Filter]
    show: Show


COMPARED = (
    Compared(
        "Zero ablation (knockout): how much the NLL (nats/token) rises when every mixer of the group adds nothing",
        "knockout",
        {"part": "mixer"},
        signed,
    ),
    Compared(
        "Reach: the smallest block of tokens that costs the group nothing measurable, mean over seeds",
        "reach_tokens",
        {"part": "mixer"},
        plain,
    ),
    Compared("Effective memory of the group: mean lag by gradient (tokens)", "memory_tokens", {}, with_interval),
)


def section(stack: StackRuns) -> list[Section]:
    """Return a column for every measure by layer group that the quality table does not show.

    One table holds the effects of changing the layers, another what was read off them unchanged.
    """
    columns = columns_of(stack, GROUPINGS, but=SHOWN)
    changed = [column for column in columns if column.where["part"]]
    unchanged = [column for column in columns if not column.where["part"]]
    tables = (
        _table(stack, "What changing the layers costs.", changed),
        _table(stack, "What is read off the unchanged stack.", unchanged),
    )
    found = tuple(table for table in tables if table)
    return [Section(title="Other measures by layer group", tables=found)] if found else []


def comparison(stacks: list[StackRuns], base: StackRuns) -> list[Section]:
    """Return what each layer group contributes to each stack."""
    tables = tuple(group_tables(ranked(stacks), distinguishing_keys(stacks)))
    return [Section(title="By layer group", tables=tables)] if tables else []


def group_tables(stacks: list[StackRuns], keys: list[str]) -> list[Table]:
    """Return a table per measure of COMPARED: a row per stack, a column per layer group."""
    groups = list(dict.fromkeys(group for stack in stacks for group in stack.groups))
    tables = []
    for words, measure, part, show in COMPARED:
        where: list[dict[str, Filter]] = [{"grouping": "group", "group": group, **part} for group in groups]
        rows = [
            (*(value(stack, key) for key in keys), *(show(stack.find(measure, **each)) for each in where))
            for stack in stacks
            if any(stack.find(measure, **each) for each in where)
        ]
        if rows:
            names, intervals = tuple(short_names(keys).values()), "" if show is plain else ", with 95 % intervals"
            text = f"{words}{intervals}."
            tables.append(Table(caption=text, text=names, numbers=tuple(groups), bodies=(tuple(rows),)))
    return tables


def _table(stack: StackRuns, words: str, columns: list[Column]) -> Table | None:
    return by_group(stack, f"{words} {how(stack.find('nll'))}", columns, groupings=GROUPINGS)
