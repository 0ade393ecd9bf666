"""Fuzzy recall: in-context recall with keys and values of one or more tokens."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from hybridlab import validate
from hybridlab.errors import ConfigError
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.counter_rng import CounterRng
from hybridlab.tasks.occurrences import first_occurrence, previous_occurrence
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, LENGTH, POSITION
from hybridlab.tasks.synthetic.base import Examples, Segment
from hybridlab.tasks.synthetic.in_context_recall import TRAIN_ON
from hybridlab.tasks.synthetic.sized import Sized


@dataclass(kw_only=True, eq=False)
class FuzzyRecall(Sized):
    """Pairs of a key of 1 to `key_size` tokens and a value of 1 to `value_size`, no token twice in
    either.

    Of the tokens below the padding, `vocabulary` - 1, the lower half form keys, the rest values.
    Sizes are drawn first, uniformly, then tokens; held-out keys all have the full size. A key that
    recurs has the same value. Pairs are laid end to end until another might not fit; the last
    repeats an earlier one, and the sequence is padded on the left. Held-out targets are all value
    tokens of keys that were shown before. In training every next token is a target, padding
    included, as in MAD's code, or only those value tokens (`train_on: recalled`).
    """

    predicts = "the value of each key shown before, token by token; in training every next token, unless set otherwise"
    slices = (DOCUMENT, POSITION, LENGTH, DISTANCE)
    source = "arXiv:2403.17844, MAD"

    vocabulary: int
    key_size: int = 3
    value_size: int = 3
    train_on: str = "every"
    examples: int | None = 12800
    held_out: int = 1280

    def __post_init__(self) -> None:
        validate.whole(key_size=self.key_size, value_size=self.value_size)
        validate.whole(least=1 + 2 * max(self.key_size, self.value_size), vocabulary=self.vocabulary)
        validate.choice(TRAIN_ON, train_on=self.train_on)
        validate.whole(least=2, length=self.length)
        if self.length + 1 < 2 * (self.key_size + self.value_size):
            sizes = f"key_size={self.key_size} and value_size={self.value_size}"
            raise ConfigError(f"length={self.length}: two pairs of {sizes} must fit")
        super().__post_init__()

    def draw(self, rng: CounterRng, segment: Segment, split: str) -> Examples:
        """Draw examples; the distance is from a value's token in the key's last occurrence to the
        same token here."""
        length, example = segment.length, np.arange(len(rng))
        num_keys, most = (self.vocabulary - 1) // 2, length // 2 + 2
        key_size = np.full((len(rng), most), self.key_size)
        if split == "training":
            key_size = 1 + rng.integers(self.key_size, most)
        value_size = 1 + rng.integers(self.value_size, most)
        key = _distinct(rng, num_keys, most, self.key_size)
        value = num_keys + _distinct(rng, self.vocabulary - 1 - num_keys, most, self.value_size)
        symbol = _symbols(key, key_size, num_keys)

        first = first_occurrence(symbol)
        shared = np.take_along_axis(value_size, first, axis=1)
        ends = (key_size + shared).cumsum(axis=1)
        shown = ends + self.key_size + self.value_size <= length + 1
        last = shown.sum(axis=1)
        new = shown & (first == np.arange(most))
        asked = np.where(new, rng.uniform(most), 1).argmin(axis=1)
        first[example, last] = asked
        for each in (key_size, symbol, key):
            each[example, last] = each[example, asked]
        value_size = np.take_along_axis(value_size, first, axis=1)
        value = np.take_along_axis(value, first[..., None], axis=1)

        size = key_size + value_size
        start = size.cumsum(axis=1) - size
        start += length + 1 - (start + size)[example, last][:, None]
        seen = previous_occurrence(symbol)
        since = np.where(seen >= 0, start - np.take_along_axis(start, seen, axis=1), -1)
        laid = np.arange(most) <= last[:, None]
        tokens = np.full((len(rng), length + 1), self.vocabulary - 1)
        targets, distance = np.full_like(tokens, IGNORED), np.full_like(tokens, -1)
        for index in range(self.key_size):
            here, pair = np.nonzero(laid & (index < key_size))
            tokens[here, start[here, pair] + index] = key[here, pair, index]
        for index in range(self.value_size):
            here, pair = np.nonzero(laid & (index < value_size))
            at = start[here, pair] + key_size[here, pair] + index
            tokens[here, at] = value[here, pair, index]
            targets[here, at] = np.where(seen[here, pair] >= 0, value[here, pair, index], IGNORED)
            distance[here, at] = since[here, pair]
        if split == "training" and self.train_on == "every":
            targets = tokens
        return Examples(tokens[:, :-1].copy(), targets[:, 1:].copy(), {"distance": distance[:, 1:].copy()})

    def answers(self, examples: Examples) -> Int64[np.ndarray, "n a"]:
        """Return the value tokens of the keys shown before, which an example shows."""
        return examples.targets


def _distinct(rng: CounterRng, high: int, num: int, size: int) -> Int64[np.ndarray, "n num size"]:
    """Return `num` ordered choices of `size` different integers below `high` for each example."""
    chosen = np.empty((len(rng), num, size), dtype=np.int64)
    for index in range(size):
        rank = rng.integers(high - index, num)  # among the integers not chosen yet
        for before in np.moveaxis(np.sort(chosen[..., :index], axis=2), 2, 0):
            rank += rank >= before
        chosen[..., index] = rank
    return chosen


def _symbols(
    key: Int64[np.ndarray, "n num most"], size: Int64[np.ndarray, "n num"], num_keys: int
) -> Int64[np.ndarray, "n num"]:
    """Return a number for each key of `size` tokens, the same for the same tokens."""
    number = np.zeros_like(size)
    for index in range(key.shape[2]):
        number = number * (num_keys + 1) + np.where(index < size, key[..., index] + 1, 0)
    return number
