"""Quality by position in the document."""

from hybridlab.report.content import Picture, Section, Table
from hybridlab.report.runs.format import how, with_interval
from hybridlab.report.runs.headline import headline_of, quality, restated
from hybridlab.report.runs.stack_runs import Filter, StackRuns
from hybridlab.report.runs.titles import title
from hybridlab.report.sections.grids import Column, Show, by_bucket, signed, tokens

ORDER = 40
PICTURE = Picture("nll_by_position", "NLL by position in the document: intact, and with each layer group ablated.")
BY_GROUP: tuple[tuple[str, str, dict[str, Filter], Show], ...] = (
    ("Zero ablation of mixers, by position", "knockout", {"part": "mixer"}, signed),
    ("Zero ablation of channel mixers, by position", "knockout", {"part": "channel"}, signed),
    ("Logit lens, by position", "lens", {}, with_interval),
)


def section(stack: StackRuns) -> list[Section]:
    """Return the intact stack by position, then its layer groups."""
    tables = position_tables(stack)
    if not tables:
        return []
    intact = Section(title="Quality by position", tables=tuple(tables[:1]), pictures=(PICTURE,))
    groups = Section(title="Layer groups by position", tables=tuple(tables[1:]), detail=True, folded=True)
    return [intact, groups] if groups.tables else [intact]


def position_tables(stack: StackRuns) -> list[Table]:
    """Return the intact stack's table, then one per ablation and lens, a column per layer group."""
    whole: dict[str, Filter] = {"grouping": "stack"}
    headline = headline_of([stack])
    shown = [*quality(headline, [stack]), *restated(headline, [stack])]
    tables = [
        by_bucket(
            stack,
            "position",
            f"The intact stack by position in the document. {how(stack.find('nll'))}",
            [Column("Tokens", "nll", whole, tokens), *(Column(title(stack.measures, m), m, whole) for m in shown)],
            "Position",
        )
    ]
    for caption, measure, where, show in BY_GROUP:
        columns = [
            Column(group, measure, {"grouping": "group", "group": group, **where}, show) for group in stack.groups
        ]
        text = f"{caption}, in nats/token. {how(stack.find('nll'))}"
        tables.append(by_bucket(stack, "position", text, columns, "Position"))
    return [table for table in tables if table]
