from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlab.errors import ConfigError
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.slices import RECALL, RECALL_DISTANCE
from hybridlab.tasks.text.documents import Documents
from hybridlab.tasks.text.recall import Rule, frequent_ngrams, recall_facts

DOCUMENTS = st.lists(st.lists(st.sampled_from([0, 1, 2, 60000]), max_size=40), min_size=1, max_size=4)


def slow_facts(document: list[int], training: list[list[int]], rule: Rule) -> list[tuple[int, int]]:
    counts = Counter(
        tuple(each[start : start + rule.n]) for each in training for start in range(len(each) - rule.n + 1)
    )
    seen: dict[tuple, int] = {}
    facts = []
    for place in range(len(document)):
        gram = tuple(document[place + 1 - rule.n : place + 1]) if place + 1 >= rule.n else None
        hit = gram in seen and counts[gram] <= rule.at_most
        facts.append((int(hit), place - seen[gram] if hit else -1))
        if gram is not None:
            seen[gram] = place
    return facts


@given(DOCUMENTS, DOCUMENTS, st.integers(2, 4), st.integers(0, 3))
def test_facts_are_those_that_a_dictionary_finds(some: list, training: list, n: int, at_most: int):
    rule = Rule(n, at_most)
    frequent = frequent_ngrams([np.array(each, dtype=np.uint16) for each in training], rule)
    for document in some:
        found = recall_facts(np.array(document, dtype=np.uint16), rule, frequent)
        assert list(zip(*map(np.ndarray.tolist, found), strict=True)) == slow_facts(document, training, rule)


def test_documents_hand_on_the_facts_of_their_targets(documents: Callable[..., Documents]):
    task = documents(recall={"n": 3, "at_most": 30})
    assert {RECALL, RECALL_DISTANCE} <= set(task.slices)
    texts = {name: [text.tolist() for text in split.texts(None)] for name, split in task.splits.items()}
    hits = 0
    for batch in task.evaluation_batches("test", window=16, stride=8, limit=None, batch=3):
        for row, column in (batch.targets != IGNORED).nonzero().tolist():
            document, position, *facts = (
                int(batch.slices[name][row, column]) for name in ("document", "position", "recall", "recall_distance")
            )
            expected = slow_facts(texts["test"][document], texts["training"], Rule(3, 30))[position]
            assert tuple(facts) == expected
            hits += facts[0]
    assert hits
    assert (task.train_batch(0).slices["recall"] == -1).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"m": 3}, "recall={'m': 3}: no key `m`; allowed: at_most, n"),
        ({"n": 1}, "recall.n=1: must be a whole number of at least 2"),
        ({"at_most": -1}, "recall.at_most=-1: must be a whole number of at least 0"),
    ],
)
def test_bad_rules_are_refused(documents: Callable[..., Documents], wrong: dict, message: str):
    with pytest.raises(ConfigError) as caught:
        documents(recall=wrong)
    assert str(caught.value) == message
