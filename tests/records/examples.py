"""Records drawn at random, every field of them."""

from typing import get_args

from hypothesis import strategies as st

from hybridlab.records.description import Direction, MeasureDescription, SliceDescription
from hybridlab.records.measurement import BOOTSTRAP, GROUPINGS, OVER_SEEDS, PARTS, SPLITS, Measurement
from hybridlab.records.record import STATUSES, RunRecord

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
TEXTS = st.text(max_size=8) | st.sampled_from(["NaN", "Infinity", "-Infinity", "\\NaN", "\\\\-Infinity", "null"])
NAMES = st.text(min_size=1, max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
MAPPINGS = st.dictionaries(TEXTS, VALUES, max_size=3)
MEASURES = st.dictionaries(
    NAMES,
    st.builds(
        MeasureDescription,
        unit=TEXTS,
        definition=TEXTS,
        source=TEXTS,
        better=st.sampled_from(get_args(Direction)),
        title=TEXTS,
        compared=TEXTS,
    ),
    max_size=3,
)
SLICES = st.dictionaries(
    NAMES,
    st.builds(
        SliceDescription,
        definition=TEXTS,
        buckets=st.lists(NAMES, min_size=1, max_size=3, unique=True).map(tuple),
        prominent=st.booleans(),
    ),
    max_size=3,
)


@st.composite
def measurements(draw, measures, slices, evaluations):
    """Draw a measurement of these measures, in a bucket of these slices or in none."""
    measure = draw(st.sampled_from(sorted(measures)))
    grouping = draw(st.sampled_from(GROUPINGS))
    slice_name = draw(st.sampled_from(["", *slices]))
    return Measurement(
        measure=measure,
        value=draw(NUMBERS),
        unit=measures[measure].unit,
        split=draw(st.sampled_from(SPLITS)),
        grouping=grouping,
        group="" if grouping == "stack" else draw(NAMES),
        part=draw(st.sampled_from(PARTS)),
        block=draw(st.none() | st.integers(1, 10**6)),
        slice=slice_name,
        bucket="" if not slice_name else draw(st.sampled_from(slices[slice_name].buckets)),
        low=draw(st.none() | NUMBERS),
        high=draw(st.none() | NUMBERS),
        interval=draw(st.sampled_from(["", BOOTSTRAP, OVER_SEEDS])),
        n=draw(st.none() | st.integers(0, 10**6)),
        tokens=draw(st.none() | st.integers(0, 10**12)),
        step=draw(st.none() | st.integers(0, 10**6)),
        evaluation=draw(st.sampled_from(["", *evaluations])),
    )


@st.composite
def fields_of_records(draw):
    """Draw the fields of a record that describes what it measured."""
    measures, slices = draw(MEASURES), draw(SLICES)
    evaluations = draw(st.dictionaries(TEXTS, MAPPINGS, max_size=2))
    return {
        "run_id": draw(TEXTS),
        "name": draw(TEXTS),
        "status": draw(st.sampled_from(STATUSES)),
        "reason": draw(TEXTS),
        "failures": draw(st.integers(0, 5)),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "config": draw(MAPPINGS),
        "choices": draw(MAPPINGS),
        "plan": draw(st.lists(MAPPINGS, max_size=3)),
        "versions": draw(MAPPINGS),
        "commit": draw(st.none() | TEXTS),
        "hardware": draw(MAPPINGS),
        "created": draw(st.datetimes()).isoformat(),
        "seconds": draw(NUMBERS),
        "derived": draw(MAPPINGS),
        "identity": draw(MAPPINGS),
        "training": draw(MAPPINGS),
        "weights": draw(TEXTS),
        "evaluations": evaluations,
        "missing": draw(st.dictionaries(TEXTS, TEXTS, max_size=2)),
        "headline": draw(st.sampled_from(["", *measures])),
        "measures": measures,
        "slices": slices,
        "measurements": draw(st.lists(measurements(measures, slices, evaluations), max_size=3)) if measures else [],
    }


FIELDS = fields_of_records()


def small_record(**changes):
    """Return a minimal record; its measurements are described by their names and units."""
    fixed = {
        "run_id": "0123456789ab",
        "name": "demo",
        "status": "finished",
        "seed": 0,
        "config": {"seed": 0},
        "choices": {"stack.groups.early.mixer": "full"},
        "created": "2025-01-01T00:00:00+00:00",
    }
    return RunRecord(**{**fixed, **described(changes.get("measurements", [])), **changes})


def described(measurements):
    """Return the shortest descriptions of some measurements, as fields of a record."""
    slices = {}
    for each in measurements:
        if each.slice:
            slices.setdefault(each.slice, {})[each.bucket] = None
    return {
        "measures": {each.measure: MeasureDescription(each.unit, each.measure) for each in measurements},
        "slices": {name: SliceDescription(name, tuple(buckets)) for name, buckets in slices.items()},
    }
