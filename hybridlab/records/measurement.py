"""One measured number with everything that says what it is."""

from dataclasses import dataclass

BOOTSTRAP = "bootstrap over documents"
OVER_SEEDS = "over seeds"
GROUPINGS = ("stack", "group", "mixer", "part", "layer", "pair")  # pair: two declared groups at once
SPLITS = ("", "test", "validation", "train")  # "" where no data are involved
PARTS = ("", "mixer", "channel")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number: of the whole stack, of a layer group, of all layers of a mixer, of a part of
    parallel layers, ...

    What `measure` and `slice` mean stands in the record (`RunRecord.measures`, `RunRecord.slices`).
    """

    measure: str
    value: float | int  # kept as a float
    unit: str
    split: str = ""  # one of SPLITS
    grouping: str = "stack"  # one of GROUPINGS
    group: str = ""  # name of the layer group or mixer; `full in full+mamba2` for a part, `early & deep` for a pair
    part: str = ""  # what was changed: one of PARTS
    block: int | None = None  # tokens that a mixer could look back over, where that was limited
    slice: str = ""  # what the bucket is of
    bucket: str = ""  # e.g. 256-511
    low: float | int | None = None  # 95 % interval
    high: float | int | None = None
    interval: str = ""  # what the interval is over: BOOTSTRAP | OVER_SEEDS
    n: int | None = None  # number of documents or seeds
    tokens: int | None = None  # scored; of a cost: length of the sequence; of a learning curve: trained on so far
    step: int | None = None  # training step, on a learning curve
    evaluation: str = ""  # key of `RunRecord.evaluations`; "" for the learning curve and for costs

    def __post_init__(self) -> None:
        assert self.measure, "a measurement needs the name of its measure"
        assert self.split in SPLITS, self.split
        assert self.grouping in GROUPINGS, self.grouping
        assert (self.grouping == "stack") == (not self.group), (self.grouping, self.group)
        assert self.part in PARTS, self.part
        assert bool(self.slice) == bool(self.bucket), (self.slice, self.bucket)
        assert self.interval in ("", BOOTSTRAP, OVER_SEEDS), self.interval
        for name in ("value", "low", "high"):  # the record holds floats; integers and NumPy's numbers are converted
            if (number := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(number))

    @property
    def name(self) -> str:
        """The one name of this number in W&B, in the report and in the docs, e.g.
        `test/knockout/group/early/mixer`.
        """
        grouping = "" if self.grouping == "stack" else self.grouping
        block = "" if self.block is None else f"block {self.block}"
        parts = (self.split, self.measure, grouping, self.group, self.part, block, self.slice, self.bucket)
        return "/".join(part for part in parts if part)
