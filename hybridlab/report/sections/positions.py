"""Quality by position in the document."""

from hybridlab.report.content import Picture, Section, Table
from hybridlab.report.runs.format import how, with_interval
from hybridlab.report.runs.headline import TITLES, columns, headline_of
from hybridlab.report.runs.stack_runs import Place, StackRuns
from hybridlab.report.sections.grids import Column, Show, by_bucket, signed, tokens


def position_sections(stack: StackRuns) -> list[Section]:
    """Return the intact stack by position, and by layer group, if any position was told."""
    tables = position_tables(stack)
    if not tables:
        return []
    picture = Picture(
        "nll_by_position", "NLL by position in the document: intact, and with each layer group knocked out."
    )
    first, *details = tables
    return [
        Section(title="Quality by position", tables=(first,), pictures=(picture,)),
        *(
            [Section(title="Layer groups by position", tables=tuple(details), detail=True, folded=True)]
            if details
            else []
        ),
    ]


def position_tables(stack: StackRuns) -> list[Table]:
    """Return the intact stack's table, then for each probe a table with a column per layer group."""
    probes: list[tuple[str, str, dict[str, Place], Show]] = [
        ("Knockout of mixers, by position", "knockout", {"part": "mixer"}, signed),
        ("Knockout of channel mixers, by position", "knockout", {"part": "channel"}, signed),
        ("Lens, by position", "lens", {}, with_interval),
    ]
    whole: dict[str, Place] = {"grouping": "stack"}
    quality = columns(headline_of([stack]), [stack])
    quality = [*quality, *(name for name in ("perplexity", "streamed_nll") if stack.find(name))]
    tables = [
        by_bucket(
            stack,
            "position",
            f"The intact stack by position in the document. {how(stack.find('nll'))}",
            [Column("Tokens", "nll", whole, tokens), *(Column(TITLES[name], name, whole) for name in quality)],
            "Position",
        )
    ]
    for caption, measure, where, show in probes:
        by_group = [
            Column(group, measure, {"grouping": "group", "group": group, **where}, show) for group in stack.groups
        ]
        text = f"{caption}, in nats/token. {how(stack.find('nll'))}"
        tables.append(by_bucket(stack, "position", text, by_group, "Position"))
    return [table for table in tables if table]
