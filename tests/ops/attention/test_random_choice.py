"""Random choices: distinct numbers, all sets equally likely, determined by seed, head and block."""

from itertools import combinations

import torch

from hybridlab.ops.attention.random_choice import random_choice


def draw(seed: int, heads: int, counts: list[int], num: int, first: int = 0) -> torch.Tensor:
    blocks = torch.arange(first, first + len(counts))
    return random_choice(torch.tensor(seed), heads, blocks, torch.tensor(counts), num)


def test_numbers_are_distinct_and_below_the_count() -> None:
    drawn = draw(3, 5, list(range(40)), 4)
    assert drawn.shape == (5, 40, 4)
    for count in range(40):
        for numbers in drawn[:, count].tolist():
            real = [number for number in numbers if number >= 0]
            assert len(set(real)) == len(real) == min(count, 4)
            assert all(number < count for number in real)
            assert all(number == -1 for number in numbers if number < 0)


def test_all_sets_are_equally_likely() -> None:
    drawn = draw(0, 10, [5] * 3000, 2).flatten(0, 1).sort(-1).values.tolist()
    sets = [drawn.count(list(pair)) for pair in combinations(range(5), 2)]
    expected = 30_000 / 10
    # Chi-squared with 9 degrees of freedom: above 28 once in a thousand draws.
    assert sum((count - expected) ** 2 / expected for count in sets) < 28


def test_seed_head_and_block_each_matter() -> None:
    drawn = draw(1, 4, [1000] * 50, 3)
    assert (drawn != draw(2, 4, [1000] * 50, 3)).float().mean() > 0.95
    assert (drawn[0] != drawn[1]).float().mean() > 0.95
    assert (drawn[:, 0] != drawn[:, 1]).float().mean() > 0.95


def test_a_block_does_not_depend_on_the_others_of_the_call() -> None:
    counts = list(range(100))
    assert torch.equal(draw(7, 4, counts, 3)[:, 60:80], draw(7, 4, counts[60:80], 3, first=60))


def test_the_generator_never_changes() -> None:
    # A checkpoint stores only the seed: another generator would be another mixer.
    assert draw(2024, 2, [10, 100, 1000], 2).tolist() == [
        [[4, 2], [81, 32], [452, 958]],
        [[3, 4], [45, 83], [463, 539]],
    ]


def test_extreme_seeds() -> None:
    for seed in (0, 2**32 - 1):
        drawn = draw(seed, 64, [2**20] * 64, 8)
        assert drawn.min() >= 0
        assert drawn.max() < 2**20
        assert len(drawn.unique()) > 0.9 * drawn.numel()
