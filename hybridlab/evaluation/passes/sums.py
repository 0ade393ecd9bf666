"""Sums over scored targets, by sampling unit and by slice."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num
from torch import Tensor

from hybridlab.evaluation.passes.buckets import Buckets
from hybridlab.evaluation.passes.interventions import Intervention
from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.tasks.slices import DOCUMENT, Slice

WHOLE = Slice("", "all targets in one bucket", labels=("",))


class Cells(NamedTuple):
    """Where the scored targets of a batch are summed up: their units, and the cell of each in every
    slice's table.
    """

    units: Int[np.ndarray, " u"]
    cells: dict[str, Int[np.ndarray, " n"]]


class Breakdown:
    """The tables that targets are summed up in: by unit (document or example), and by the buckets
    of each slice.
    """

    def __init__(self, batches: Sequence[Batch], slices: Sequence[Slice]) -> None:
        last = (int(of_targets(batch.slices[DOCUMENT.name], batch).max(initial=-1)) for batch in batches)
        self.units = 1 + max(last)
        self.buckets = {WHOLE.name: Buckets(WHOLE, [np.zeros(1, np.int64)])} | {
            slice.name: Buckets(slice, (of_targets(batch.slices[slice.name], batch) for batch in batches))
            for slice in slices
        }

    def cells(self, batch: Batch) -> Cells:
        """Return the cells of the scored targets of a batch, in the order of a boolean mask over
        its targets.
        """
        units, unit = np.unique(of_targets(batch.slices[DOCUMENT.name], batch), return_inverse=True)
        cells = {WHOLE.name: 2 * unit}
        for name, buckets in self.buckets.items():
            if name != WHOLE.name:
                cells[name] = unit * (len(buckets) + 1) + buckets.of(of_targets(batch.slices[name], batch))
        return Cells(units, cells)


class Sums:
    """Sums of one number over targets, [units, buckets] for each slice of a breakdown."""

    def __init__(self, breakdown: Breakdown) -> None:
        # One column more than buckets: targets that are in none.
        self._tables = {
            name: np.zeros((breakdown.units, len(buckets) + 1)) for name, buckets in breakdown.buckets.items()
        }

    def add(self, values: Float[np.ndarray, " n"], cells: Cells) -> None:
        """Add a number per target."""
        for name, index in cells.cells.items():
            table = self._tables[name]
            shape = len(cells.units), table.shape[1]
            table[cells.units] += np.bincount(index, values, shape[0] * shape[1]).reshape(shape)

    def by(self, slice: str = WHOLE.name) -> Float[np.ndarray, "units buckets"]:
        """Return the sums by the buckets of a slice."""
        return self._tables[slice][:, :-1]


class TargetSums:
    """What was summed up over some targets: their number, their bytes, and each reading under each
    intervention.

    `bytes_of_token` is the task's, or None.
    """

    def __init__(self, breakdown: Breakdown, bytes_of_token: Any) -> None:
        self.breakdown = breakdown
        self.tokens = Sums(breakdown)
        self.bytes = Sums(breakdown)
        self._read: dict[tuple[Intervention, Any], Sums] = {}
        self._bytes_of_token = None if bytes_of_token is None else np.asarray(bytes_of_token, float)

    def count(self, batch: Batch) -> Cells:
        """Count the targets of a batch on the CPU; return their cells."""
        cells = self.breakdown.cells(batch)
        self.tokens.add(np.ones(len(cells.cells[WHOLE.name])), cells)
        if self._bytes_of_token is not None:
            number = self._bytes_of_token[of_targets(batch.targets, batch)]
            if batch.num_bytes is not None:
                number = of_targets(batch.num_bytes, batch).astype(float)
            self.bytes.add(number, cells)
        return cells

    def add(self, asked: tuple[Intervention, Any], values: Float[np.ndarray, " n"], cells: Cells) -> None:
        """Add what was read of the counted targets of a batch under an intervention."""
        self._read.setdefault(asked, Sums(self.breakdown)).add(values, cells)

    def total(self, terms: Sequence[tuple[int, Intervention, Any]], slice: str) -> Float[np.ndarray, "units buckets"]:
        """Return a signed sum of readings by the buckets of a slice."""
        signed = [sign * self._read[intervention, reading].by(slice) for sign, intervention, reading in terms]
        with np.errstate(invalid="ignore"):  # the difference of two infinite losses is no number
            return np.sum(signed, axis=0)


def of_targets(values: Num[Tensor, "b t"] | Num[Tensor, " b"], batch: Batch) -> Num[np.ndarray, " n"]:
    """Return the values at the scored targets of a batch on the CPU."""
    return values[batch.targets != IGNORED].numpy()
