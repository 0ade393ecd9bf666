"""Records drawn at random, every field of them."""

from hypothesis import strategies as st

from hybridlab.records.measurement import BOOTSTRAP, GROUPINGS, OVER_SEEDS, Measurement
from hybridlab.records.measures import MEASURES
from hybridlab.records.record import STATUSES, RunRecord
from hybridlab.records.slices import SLICES

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
TEXTS = st.text(max_size=8) | st.sampled_from(["NaN", "Infinity", "-Infinity", "\\NaN", "\\\\-Infinity", "null"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
MAPPINGS = st.dictionaries(TEXTS, VALUES, max_size=3)


@st.composite
def measurements(draw):
    measure = draw(st.sampled_from(sorted(MEASURES)))
    grouping = draw(st.sampled_from(GROUPINGS))
    slice_name = draw(st.sampled_from(["", *SLICES]))
    return Measurement(
        measure=measure,
        value=draw(NUMBERS),
        unit=MEASURES[measure].unit,
        split=draw(st.sampled_from(["", "test", "validation", "train"])),
        grouping=grouping,
        group="" if grouping == "stack" else draw(st.text(min_size=1, max_size=8)),
        part=draw(st.sampled_from(["", "mixer", "channel"])),
        slice=slice_name,
        bucket="" if not slice_name else draw(st.text(min_size=1, max_size=8)),
        low=draw(st.none() | NUMBERS),
        high=draw(st.none() | NUMBERS),
        interval=draw(st.sampled_from(["", BOOTSTRAP, OVER_SEEDS])),
        n=draw(st.none() | st.integers(0, 10**6)),
        tokens=draw(st.none() | st.integers(0, 10**12)),
        step=draw(st.none() | st.integers(0, 10**6)),
    )


RECORDS = st.builds(
    RunRecord,
    run_id=TEXTS,
    name=TEXTS,
    status=st.sampled_from(STATUSES),
    reason=TEXTS,
    failures=st.integers(0, 5),
    seed=st.integers(0, 2**32 - 1),
    config=MAPPINGS,
    choices=MAPPINGS,
    plan=st.lists(MAPPINGS, max_size=3),
    versions=MAPPINGS,
    commit=st.none() | TEXTS,
    hardware=MAPPINGS,
    created=st.datetimes().map(lambda moment: moment.isoformat()),
    seconds=NUMBERS,
    evaluation=MAPPINGS,
    measurements=st.lists(measurements(), max_size=3),
)


def small_record(**changes):
    fixed = {
        "run_id": "0123456789ab",
        "name": "demo",
        "status": "finished",
        "seed": 0,
        "config": {"seed": 0},
        "choices": {"stack.groups.early.mixer": "full"},
        "created": "2025-01-01T00:00:00+00:00",
    }
    return RunRecord(**{**fixed, **changes})
