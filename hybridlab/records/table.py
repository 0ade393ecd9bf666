"""A folder of runs as one long table: a row is one measured number."""

from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Any

from hybridlab.records.measurement import Measurement
from hybridlab.records.record import RunRecord


def long_table(records: Iterable[RunRecord]) -> list[dict[str, Any]]:
    """Return one row per measurement, all with the same columns: the run, its choices, the fields of the measurement.

    A run that measured nothing is one row without a measurement.
    """
    records = list(records)
    choices = dict.fromkeys(key for record in records for key in record.choices)
    nothing: dict[str, Any] = dict.fromkeys(f.name for f in fields(Measurement))
    rows = []
    for record in records:
        run = {key: getattr(record, key) for key in ("run_id", "seed", "name", "status", "reason")}
        chosen = {key: record.choices.get(key) for key in choices}
        rows += [{**run, **chosen, **asdict(measured)} for measured in record.measurements]
        if not record.measurements:
            rows.append({**run, **chosen, **nothing})
    return rows
