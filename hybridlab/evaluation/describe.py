"""What a record keeps of the measures and slices that its measurements name."""

from collections.abc import Sequence
from typing import Any

from hybridlab.evaluation.measures import costs
from hybridlab.evaluation.measures.base import Measure
from hybridlab.evaluation.measures.nll import NLL
from hybridlab.evaluation.passes.buckets import in_order
from hybridlab.records.description import SliceDescription
from hybridlab.records.measurement import Measurement
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


def described(measurements: Sequence[Measurement], measures: Sequence[Measure], task: Task) -> dict[str, Any]:
    """Return the fields `measurements`, `measures` and `slices` of a record."""
    classes = {measure.name: measure for measure in [*ALWAYS, *map(type, measures)]}
    declared = {slice.name: slice for slice in task.slices}
    declared |= {slice.name: slice for measure in classes.values() for slice in measure.slices}
    buckets: dict[str, dict[str, None]] = {}
    for found in measurements:
        if found.slice:
            buckets.setdefault(found.slice, {})[found.bucket] = None
    return {
        "measurements": list(measurements),
        "measures": {name: classes[name].describe() for name in dict.fromkeys(found.measure for found in measurements)},
        "slices": {
            name: SliceDescription(slice.definition, in_order(slice, buckets[name]), slice.prominent)
            for name, slice in declared.items()
            if name in buckets
        },
    }
