"""How far back a group of layers needs to look, read off what each block costs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from hybridlab.records.measurement import Measurement
from hybridlab.records.measures import MEASURES

MEASURABLE = 1e-4  # nats/token: what lies below is rounding, or nothing that anyone would pay for


def reach_tokens(rows: Sequence[Measurement]) -> Iterator[Measurement]:
    """Yield, for each group of layers in rows of `reach`, the smallest block from which on none costs anything measurable.

    Where even the largest block does, it is twice that, the first that cuts nothing off.
    """
    by_group: dict[tuple[str, str], list[Measurement]] = {}
    for row in rows:
        if row.measure == "reach" and not row.slice:
            by_group.setdefault((row.grouping, row.group), []).append(row)
    for found in by_group.values():
        falling = sorted(found, key=lambda row: -(row.block or 0))
        costly = next((row.block for row in falling if _costs(row)), None)
        smallest = falling[-1].block if costly is None else 2 * costly
        yield replace(
            falling[-1],
            measure="reach_tokens",
            unit=MEASURES["reach_tokens"].unit,
            value=smallest,
            block=None,
            low=None,
            high=None,
            interval="",
        )


def _costs(row: Measurement) -> bool:
    """Say whether the 95 % interval of a loss lies above what is measurable; of one document, the loss itself."""
    return (row.value if row.low is None else row.low) > MEASURABLE
