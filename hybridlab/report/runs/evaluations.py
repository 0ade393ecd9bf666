"""Which evaluation of its runs a report is about: its numbers are all of one.

A run may be evaluated again, on more text or in other windows, and keeps all its numbers. A report
takes of each run the evaluation that most of the runs have, and the latest of several.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hybridlab.records.record import RunRecord


def with_one_evaluation(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the records with the numbers of one evaluation each; those of no evaluation stay."""
    shared = Counter(key for record in records for key in record.evaluations)
    return [_of(record, chosen) if (chosen := _chosen(record, shared)) else record for record in records]


def left_out(records: Sequence[RunRecord]) -> list[str]:
    """Return a sentence on the evaluations that a report on these records leaves out."""
    shared = Counter(key for record in records for key in record.evaluations)
    chosen = {key: record for record in records if (key := _chosen(record, shared))}
    others: dict[str, tuple[RunRecord, int]] = {}
    for record in records:
        for key in record.evaluations:
            if key != _chosen(record, shared):
                others[key] = record, others.get(key, (record, 0))[1] + 1
    if not others:
        return []
    taken = "; ".join(f"{key}: {_in_words(record, key)}, of {shared[key]} runs" for key, record in chosen.items())
    rest = "; ".join(f"{key}: {_in_words(record, key)}, of {count} runs" for key, (record, count) in others.items())
    return [
        f"Runs were evaluated more than once. All numbers here are of the evaluation that most runs have ({taken}); "
        f"those of others are in the records ({rest})."
    ]


def _chosen(record: RunRecord, shared: Counter[str]) -> str:
    """Return the key of the evaluation that most runs have, of several the latest; "" without
    any."""
    keys = list(record.evaluations)
    return max(reversed(keys), key=shared.__getitem__, default="")


def _of(record: RunRecord, chosen: str) -> RunRecord:
    if len(record.evaluations) < 2:
        return record
    kept = [each for each in record.measurements if each.evaluation in ("", chosen)]
    return replace(record, measurements=kept, evaluations={chosen: record.evaluations[chosen]})


def _in_words(record: RunRecord, key: str) -> str:
    """Return an evaluation in a few words, e.g. `test split, windows of 512, limit 4,096`."""
    stated = record.evaluations[key]
    numbers = [
        f"{name} {stated[name]:,}" for name in ("window", "stride", "limit") if isinstance(stated.get(name), int)
    ]
    return ", ".join([f"{stated.get('split', 'test')} split", *numbers])
