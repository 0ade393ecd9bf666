import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hybridlab.tasks.occurrences import first_occurrence, previous_occurrence


@given(
    arrays.arrays(
        np.int64, arrays.array_shapes(min_dims=1, max_dims=2, min_side=1, max_side=30), elements=st.integers(0, 5)
    )
)
def test_places_are_those_that_a_dictionary_finds(symbols: np.ndarray):
    rows = symbols.reshape(-1, symbols.shape[-1]).tolist()
    first, last = [], []
    for row in rows:
        seen: dict[int, int] = {}
        start: dict[int, int] = {}
        for place, symbol in enumerate(row):
            last.append(seen.get(symbol, -1))
            first.append(start.setdefault(symbol, place))
            seen[symbol] = place
    assert previous_occurrence(symbols).ravel().tolist() == last
    assert first_occurrence(symbols).ravel().tolist() == first
