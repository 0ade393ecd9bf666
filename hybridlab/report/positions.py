"""Quality by position in the document."""

from hybridlab.report.content import Table
from hybridlab.report.numbers import count, how, with_interval
from hybridlab.report.stack_runs import StackRuns


def position_tables(stack: StackRuns) -> list[Table]:
    """Return the intact stack's table, then for each probe a table with a column per layer group."""
    probes = [
        ("Knockout of mixers, by position", "knockout", {"part": "mixer"}),
        ("Knockout of channel mixers, by position", "knockout", {"part": "channel"}),
        ("Lens, by position", "lens", {}),
    ]
    tables = [_intact(stack)]
    for caption, measure, where in probes:
        rows = [(_range(bucket), *_by_group(stack, measure, bucket, where)) for bucket in stack.buckets]
        if any(cell != "–" for row in rows for cell in row[1:]):
            text = f"{caption}, in nats/token. {how(stack.find('nll'))}"
            tables.append(Table(caption=text, text=("Position",), numbers=tuple(stack.groups), bodies=(tuple(rows),)))
    return tables


def _intact(stack: StackRuns) -> Table:
    rows = []
    for bucket in stack.buckets:
        where = {"slice": "position", "bucket": bucket}
        nll, bits, perplexity = (stack.find(name, **where) for name in ("nll", "bits_per_byte", "perplexity"))
        tokens = count(nll.tokens if nll else None)
        rows.append((_range(bucket), tokens, *map(with_interval, (nll, bits, perplexity))))
    return Table(
        caption=f"The intact stack by position in the document. {how(stack.find('nll'))}",
        text=("Position",),
        numbers=("Tokens", "NLL\n(nats/token)", "Bits per byte", "Perplexity"),
        bodies=(tuple(rows),),
    )


def _by_group(stack: StackRuns, measure: str, bucket: str, where: dict[str, str]) -> list[str]:
    return [
        with_interval(
            stack.find(measure, grouping="group", group=group, slice="position", bucket=bucket, **where),
            signed=measure == "knockout",
        )
        for group in stack.groups
    ]


def _range(bucket: str) -> str:
    return bucket.replace("-", "–")
