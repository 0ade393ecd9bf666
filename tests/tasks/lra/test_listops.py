"""ListOps: the values match a simple evaluation of the lists, the rules those published."""

import statistics

import numpy as np
import pytest

from hybridlab.errors import ConfigError
from hybridlab.tasks.lra.listops import ListOps
from hybridlab.tasks.lra.listops_trees import END, MAX, MED, MIN, SUM_MOD, grow

APPLY = {
    MIN: min,
    MAX: max,
    MED: lambda values: int(statistics.median(values)),
    SUM_MOD: lambda values: sum(values) % 10,
}


def listops(**settings) -> ListOps:
    return ListOps(**{"seed": 0, "length": 128, "min_length": 16, "batch": 16} | settings)


def read(tokens, depth=1) -> tuple[int, int, int]:
    """Return the first value, the number of tokens that it takes, and its depth."""
    if tokens[0] not in APPLY:
        assert tokens[0] < 10
        return int(tokens[0]), 1, depth
    values, place, deepest = [], 1, depth
    while tokens[place] != END:
        value, taken, reached = read(tokens[place:], depth + 1)
        values.append(value)
        place += taken
        deepest = max(deepest, reached)
    assert 2 <= len(values) <= 10
    return APPLY[tokens[0]](values), place + 1, deepest


@pytest.mark.parametrize(("shortest", "longest", "deepest"), [(4, 300, 10), (500, 2000, 10), (4, 60, 3)])
def test_values_are_those_of_a_plain_reading(shortest, longest, deepest):
    seen = 0
    depths = set()
    for tokens, value in grow(np.random.default_rng(0), 100, deepest, 10, shortest, longest):
        found, taken, depth = read(tokens.tolist())
        assert (found, taken) == (value, len(tokens))
        assert shortest <= taken <= longest
        depths.add(depth)
        seen += 1
    assert seen > 10
    assert max(depths) == deepest


def test_lists_are_as_the_rule_draws_them():
    """Without bounds, arguments are lists with probability 1/4, and all else is uniform."""
    roots = [tokens for tokens, _ in grow(np.random.default_rng(1), 4000, 2, 10, 1, 99)]
    assert len(roots) == 4000
    counts = np.bincount([len(tokens) - 2 for tokens in roots], minlength=11)[2:]
    assert counts.min() > 0.8 * 4000 / 9
    assert np.bincount([tokens[0] for tokens in roots])[10:].min() > 0.9 * 1000
    deeper = np.concatenate([tokens for tokens, _ in grow(np.random.default_rng(1), 4000, 3, 10, 1, 999)])
    nested = np.isin(deeper, list(APPLY)).sum() - 4000
    assert nested / (4000 * 6) == pytest.approx(0.25, abs=0.01)


def test_no_list_is_in_two_splits_and_no_seed_moves_one():
    lists = {split: {e.texts[0].tobytes() for e in listops().held_out(split, 400)} for split in ("validation", "test")}
    lists["training"] = set()
    for seed in range(3):
        generator = np.random.default_rng(seed)
        lists["training"] |= {example.texts[0].tobytes() for example in listops(seed=seed).draw(generator, 400)}
    assert len(set.union(*lists.values())) == sum(map(len, lists.values()))


def test_sequences_are_the_lists_with_padding():
    batch = listops().train_batch(3)
    assert batch.inputs.shape == (16, 128)
    assert batch.documents is not None
    for row, documents, target in zip(batch.inputs, batch.documents, batch.targets, strict=True):
        value, taken, _ = read(row.tolist())
        assert value == target
        assert documents.tolist() == [0] * taken + [-1] * (128 - taken)
        assert (row[taken:] == 15).all()


def test_what_can_hardly_be_drawn_is_refused():
    with pytest.raises(ConfigError, match="min_length=100: lists of 100 to 128 tokens are too rare"):
        listops(min_length=100, max_depth=2)
    with pytest.raises(ConfigError, match="min_length=200: must be at most length=128"):
        listops(min_length=200)
