"""Sums over scored targets by sampling unit and by slice, and the means and intervals that they give."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int16, Int64
from torch import Tensor

from hybridlab.evaluation.passes.buckets import Buckets
from hybridlab.evaluation.passes.probes import Run
from hybridlab.records.slices import EXACT, SLICES, Slice
from hybridlab.tasks.batch import IGNORED, Batch

RESAMPLES = 1000
WHOLE = ""  # the slice that has all targets in one bucket
AT_A_TIME = 50  # resamples that are multiplied out together


class Places(NamedTuple):
    """Where the scored targets of a batch are summed up: their units, and the cell of each in each slice's part of a table."""

    units: Int[np.ndarray, " u"]
    cells: dict[str, Int[np.ndarray, " n"]]


class Breakdown:
    """How the targets of some batches are summed up: by unit, the document or the example, and by the buckets of slices."""

    def __init__(self, batches: Sequence[Batch], slices: Sequence[str]) -> None:
        self.units = 1 + max(int(of_targets(batch.slices["document"], batch).max(initial=-1)) for batch in batches)
        whole = Buckets(Slice(EXACT, "", labels=("",)), [np.zeros(1, np.int64)])
        self.buckets = {WHOLE: whole} | {
            name: Buckets(SLICES[name], (of_targets(batch.slices[name], batch) for batch in batches)) for name in slices
        }

    def places(self, batch: Batch) -> Places:
        """Place the scored targets of a batch, in the order of a boolean mask over its targets."""
        units, unit = np.unique(of_targets(batch.slices["document"], batch), return_inverse=True)
        cells = {WHOLE: 2 * unit}
        for name, buckets in self.buckets.items():
            if name != WHOLE:
                cells[name] = unit * (len(buckets) + 1) + buckets.of(of_targets(batch.slices[name], batch))
        return Places(units, cells)


class Sums:
    """Sums of one number over targets, [units, buckets] for each slice of a breakdown."""

    def __init__(self, breakdown: Breakdown) -> None:
        # One column more than buckets: targets that are in none.
        self._tables = {
            name: np.zeros((breakdown.units, len(buckets) + 1)) for name, buckets in breakdown.buckets.items()
        }

    def add(self, values: Float[np.ndarray, " n"], places: Places) -> None:
        """Add a number per target."""
        for name, cells in places.cells.items():
            table = self._tables[name]
            shape = len(places.units), table.shape[1]
            table[places.units] += np.bincount(cells, values, shape[0] * shape[1]).reshape(shape)

    def by(self, name: str = WHOLE) -> Float[np.ndarray, "units buckets"]:
        """Return the sums by the buckets of a slice."""
        return self._tables[name][:, :-1]


class Scores:
    """What was measured of some targets: how many they are, the bytes they stand for, their NLL by each run of the stack.

    `bytes_of_token` is the task's, or None.
    """

    def __init__(self, breakdown: Breakdown, bytes_of_token: Any) -> None:
        self.breakdown = breakdown
        self.tokens = Sums(breakdown)
        self.bytes = Sums(breakdown)
        self.correct = Sums(breakdown)  # targets that the intact stack finds likeliest
        self.nll: dict[Run, Sums] = {}  # nats
        self._bytes_of_token = None if bytes_of_token is None else np.asarray(bytes_of_token, float)

    def count(self, batch: Batch) -> Places:
        """Take in the targets of a batch; return their places."""
        places = self.breakdown.places(batch)
        self.tokens.add(np.ones(len(places.cells[WHOLE])), places)
        if self._bytes_of_token is not None:
            self.bytes.add(self._bytes_of_token[of_targets(batch.targets, batch)], places)
        return places

    def add(self, run: Run, nll: Float[np.ndarray, " n"], places: Places) -> None:
        """Add the NLL of the counted targets of a batch."""
        self.nll.setdefault(run, Sums(self.breakdown)).add(nll, places)


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval, and the number of units that it rests on."""

    value: float
    low: float | None
    high: float | None
    units: int

    def changed(self, change: Callable[[float], float]) -> "Interval":
        """Return the interval of a monotone function of the mean."""
        low, high = (None if end is None else change(end) for end in (self.low, self.high))
        return Interval(change(self.value), low, high, self.units)


def means(totals: Float[np.ndarray, "u c"], weights: Float[np.ndarray, "u c"]) -> list[Interval | None]:
    """Return the mean of each column: the sum of its totals over that of its weights, both by unit.

    The interval is a percentile bootstrap over units (of all of them, so that columns and differences are paired); one unit
    gives none. `None` where nothing was weighed.
    """
    present = (weights > 0).sum(0)
    low, high = np.full((2, weights.shape[1]), np.nan)
    if (several := present > 1).any():
        drawn, weighed = _resampled(totals[:, several]), _resampled(weights[:, several])
        ratios = np.divide(drawn, weighed, out=np.full_like(drawn, np.nan), where=weighed > 0)
        low[several], high[several] = np.nanquantile(ratios, (0.025, 0.975), axis=0)
    found: list[Interval | None] = []
    for column, units in enumerate(present.tolist()):
        if units == 0:
            found.append(None)
            continue
        ends = (float(low[column]), float(high[column])) if units > 1 else (None, None)
        found.append(Interval(float(totals[:, column].sum() / weights[:, column].sum()), *ends, units))
    return found


def of_targets(values: Int64[Tensor, "b t"] | Int64[Tensor, " b"], batch: Batch) -> Int[np.ndarray, " n"]:
    """Return the values at the scored targets of a batch."""
    return values[batch.targets != IGNORED].numpy()


def _resampled(columns: np.ndarray) -> np.ndarray:
    """Return the sum of each column [u, c] over each resample of the units, [resamples, c]."""
    draws = _draws(len(columns))
    pieces = (draws[first : first + AT_A_TIME] for first in range(0, RESAMPLES, AT_A_TIME))
    return np.concatenate([piece.astype(np.float64) @ columns for piece in pieces])


@lru_cache(maxsize=1)
def _draws(units: int) -> Int16[np.ndarray, "resamples units"]:
    """Return how often each unit is drawn in each resample, the same for all measures of a split."""
    generator = np.random.default_rng(0)
    draws = np.empty((RESAMPLES, units), np.int16)
    for row in draws:
        row[:] = np.bincount(generator.integers(units, size=units), minlength=units)
    return draws
