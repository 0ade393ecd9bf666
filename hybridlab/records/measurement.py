"""One measured number with everything that says what it is: a row of the long table."""

from dataclasses import dataclass

from hybridlab.records.measures import MEASURES
from hybridlab.records.slices import SLICES

BOOTSTRAP = "bootstrap over documents"
OVER_SEEDS = "over seeds"
GROUPINGS = ("stack", "group", "mixer", "part", "layer", "pair")  # pair: two declared groups at once


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number, of the whole stack, of a declared layer group, of all layers of a mixer, of a part of parallel layers, ..."""

    measure: str  # a key of MEASURES
    value: float
    unit: str
    split: str = ""  # "" where no data are involved | test | validation | train
    grouping: str = "stack"  # one of GROUPINGS
    group: str = (
        ""  # the layer group's or mixer's name; a part's is spelt `full in full+mamba2`, a pair's `early & deep`
    )
    part: str = ""  # what was changed: mixer | channel
    block: int | None = None  # tokens that a mixer could look back over, where that was cut
    slice: str = ""  # what the bucket is of: a key of SLICES
    bucket: str = ""  # e.g. 256-511
    low: float | None = None  # 95 % interval
    high: float | None = None
    interval: str = ""  # what the interval is over: BOOTSTRAP | OVER_SEEDS
    n: int | None = None  # documents or seeds
    tokens: int | None = None  # scored; for a cost, the length of the row; for a training curve, trained on so far
    step: int | None = None  # of training, for a training curve

    def __post_init__(self) -> None:
        assert self.measure in MEASURES, self.measure
        assert self.unit == MEASURES[self.measure].unit, (self.measure, self.unit)
        assert self.split in ("", "test", "validation", "train"), self.split
        assert self.grouping in GROUPINGS, self.grouping
        assert (self.grouping == "stack") == (not self.group), (self.grouping, self.group)
        assert self.part in ("", "mixer", "channel"), self.part
        assert bool(self.slice) == bool(self.bucket), (self.slice, self.bucket)
        assert self.slice in ("", *SLICES), self.slice
        assert self.interval in ("", BOOTSTRAP, OVER_SEEDS), self.interval
        for name in ("value", "low", "high"):  # numpy's and integer numbers are welcome; the record holds floats
            if (number := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(number))

    @property
    def name(self) -> str:
        """The one name of this number in W&B, in the report and in the docs, e.g. `test/knockout/group/early/mixer`."""
        grouping = "" if self.grouping == "stack" else self.grouping
        block = "" if self.block is None else f"block {self.block}"
        parts = (self.split, self.measure, grouping, self.group, self.part, block, self.slice, self.bucket)
        return "/".join(part for part in parts if part)
