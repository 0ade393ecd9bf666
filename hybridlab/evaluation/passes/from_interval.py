"""From a mean with its interval to a row of the record."""

from typing import Any

from hybridlab.evaluation.passes.scores import Interval
from hybridlab.records.measurement import BOOTSTRAP, Measurement
from hybridlab.records.measures import MEASURES


def measured(measure: str, found: Interval, **where: Any) -> Measurement:
    """Return the row of a measure whose value is `found`; `where` says of what it is, by the fields of `Measurement`."""
    return Measurement(
        measure=measure,
        value=found.value,
        unit=MEASURES[measure].unit,
        low=found.low,
        high=found.high,
        interval="" if found.low is None else BOOTSTRAP,
        n=found.units,
        **where,
    )
