from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.errors import ConfigError
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.text.documents import Documents
from hybridlab.tasks.text.ngram import BEGIN
from hybridlab.tasks.text.scored_text import end_of_prefix

SPLITS = ("training", "validation", "test")


@st.composite
def layouts(draw) -> dict:
    window = draw(st.integers(1, 90))
    return {
        "window": window,
        "stride": draw(st.integers(1, window)),
        "limit": draw(st.none() | st.integers(1, 300)),
        "batch": draw(st.integers(1, 9)),
    }


@given(split=st.sampled_from(SPLITS), layout=layouts())
@settings(max_examples=60, deadline=None)
def test_every_byte_of_the_prefix_is_scored_once_with_the_most_context(task: Documents, split: str, layout: dict):
    source = task.splits[split]
    scored = Counter()
    for batch in task.evaluation_batches(split, **layout):
        assert batch.inputs.shape[1] <= layout["window"]
        assert len(batch.inputs) <= layout["batch"]
        for row, column in (batch.targets != IGNORED).nonzero().tolist():
            document = int(batch.slices["document"][row, column])
            position = int(batch.slices["position"][row, column])
            scored[document, position] += 1
            token = source.offsets[document] + position
            assert batch.targets[row, column] == source.tokens[token + 1]
            assert batch.inputs[row, : column + 1].tolist() == source.tokens[token - column : token + 1].tolist()
            assert column == position - earliest_start(position, layout["window"], layout["stride"])
    prefixes = [end_of_prefix(text, layout["limit"]) for text in source.texts(None)]
    assert scored == {(index, at): 1 for index, prefix in enumerate(prefixes) for at in range(prefix)}


def earliest_start(position: int, window: int, stride: int) -> int:
    """Return the start of the first window that covers `position`."""
    return next(start for start in range(0, position + 1, stride) if position < start + window)


def test_the_first_byte_is_predicted_from_begin(task: Documents):
    first = next(iter(task.evaluation_batches("test", window=8, stride=8, limit=None, batch=1)))
    assert first.inputs[0, 0] == BEGIN
    assert first.slices["position"][0, 0] == 0
    assert first.targets[0, 0] == task.splits["test"].tokens[1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stride": 9}, "stride=9: must be at most window=8, or bytes between windows are lost"),
        ({"stride": 0}, "stride=0: must be a whole number of at least 1"),
        ({"window": -2}, "window=-2: must be a whole number of at least 1"),
        ({"batch": 0}, "batch=0: must be a whole number of at least 1"),
        ({"limit": 0}, "limit=0: must be a whole number of at least 1, or null: no limit"),
        ({"split": "tets"}, "split=tets: did you mean `test`?"),
    ],
)
def test_bad_layouts_are_refused_at_once(task: Documents, wrong: dict, message: str):
    layout = {"split": "test", "window": 8, "stride": 4, "limit": None, "batch": 2} | wrong
    with pytest.raises(ConfigError) as caught:
        task.evaluation_batches(layout.pop("split"), **layout)
    assert str(caught.value) == message
