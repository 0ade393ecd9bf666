"""What a record keeps of the measures and slices that its measurements name."""

from collections.abc import Sequence
from typing import Any

from hybridlab.evaluation.measures import costs
from hybridlab.evaluation.measures.base import Measure
from hybridlab.evaluation.measures.nll import NLL
from hybridlab.evaluation.passes.buckets import in_order
from hybridlab.records.description import SliceDescription
from hybridlab.records.measurement import Measurement
from hybridlab.records.record import RunRecord
from hybridlab.tasks.base import Task

# Measured of every run, whatever its evaluation asks for; NLL is also on the learning curve.
ALWAYS: tuple[type[Measure], ...] = (
    NLL,
    costs.Parameters,
    costs.FLOPs,
    costs.StateBytes,
    costs.Milliseconds,
    costs.TokensPerSecond,
    costs.PeakMemoryBytes,
    costs.NgramBitsPerByte,
)


def described(
    measurements: Sequence[Measurement], measures: Sequence[Measure], task: Task, record: RunRecord | None = None
) -> dict[str, Any]:
    """Return the fields `measurements`, `measures` and `slices` of a record: what `record` has, if
    given, and more measurements.
    """
    classes = {measure.name: measure for measure in [*ALWAYS, *map(type, measures)]}
    declared = {slice.name: slice for slice in task.slices}
    declared |= {slice.name: slice for measure in classes.values() for slice in measure.slices}
    earlier = {} if record is None else record.slices
    buckets = {name: dict.fromkeys(slice.buckets) for name, slice in earlier.items() if name in declared}
    for found in measurements:
        if found.slice:
            buckets.setdefault(found.slice, {})[found.bucket] = None
    slices = {
        name: SliceDescription(slice.definition, in_order(slice, buckets[name]), slice.prominent)
        for name, slice in declared.items()
        if name in buckets
    }
    names = dict.fromkeys(found.measure for found in measurements)
    return {
        "measurements": [*(record.measurements if record else ()), *measurements],
        "measures": (record.measures if record else {}) | {name: classes[name].describe() for name in names},
        "slices": {**earlier, **slices},
    }
