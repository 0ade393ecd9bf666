import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridlab.evaluation.passes.sums import Breakdown, Sums
from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.tasks.slices import POSITION, RECALL


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(-1, 300), st.integers(-1, 1), st.booleans(), st.floats(0, 9)),
        min_size=1,
    ),
    st.integers(1, 7),
)
def test_sums_are_those_of_a_loop_over_targets(targets, width):
    """A target: document, position, whether it is a recall, whether it is scored, NLL."""
    batches, values = [], []
    for first in range(0, len(targets), width):
        document, position, recall, scored, value = map(torch.tensor, zip(*targets[first : first + width], strict=True))
        slices = {"document": document, "position": position, "recall": recall}
        wanted = torch.where(scored, 1, IGNORED)
        batches.append(Batch(document[None], wanted[None], {name: facts[None] for name, facts in slices.items()}))
        values.append(value[scored].numpy())
    breakdown = Breakdown(batches, [POSITION, RECALL])
    sums = Sums(breakdown)
    for batch, value in zip(batches, values, strict=True):
        sums.add(value, breakdown.cells(batch))

    kept = [target for target in targets if target[3]]
    for unit in range(breakdown.units):
        mine = [target for target in kept if target[0] == unit]
        assert sums.by()[unit, 0] == pytest.approx(sum(target[4] for target in mine))
        for bucket, name in enumerate(breakdown.buckets["recall"].names):
            expected = sum(target[4] for target in mine if target[2] == ["other tokens", "recall"].index(name))
            assert sums.by("recall")[unit, bucket] == pytest.approx(expected)
        for bucket, name in enumerate(breakdown.buckets["position"].names):
            low, high = map(int, name.split("-"))
            expected = sum(target[4] for target in mine if low <= target[1] <= high)
            assert sums.by("position")[unit, bucket] == pytest.approx(expected)
