"""Fuzzy recall: in-context recall whose keys and values are one token or several."""

import numpy as np
from jaxtyping import Int64

from hybridlab.errors import ConfigError
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.settings import require_choice, require_whole
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, LENGTH, POSITION
from hybridlab.tasks.synthetic.base import Examples, Segment
from hybridlab.tasks.synthetic.draws import Draws
from hybridlab.tasks.synthetic.in_context_recall import TRAIN_ON
from hybridlab.tasks.synthetic.sized import Sized
from hybridlab.tasks.text.previous import first_occurrence, previous_occurrence


class FuzzyRecall(Sized):
    """Pairs of a key of 1 to `key_size` tokens and a value of 1 to `value_size`, no token twice in either.

    Of the tokens below the padding, `vocabulary` - 1, the lower half make up keys, the rest values. Sizes are drawn first,
    each as likely, then tokens; held-out rows have keys of the full size alone. A key that comes again has the same value.
    Pairs are laid end to end until no more are sure to fit; the last is one of those shown before, and the row is padded
    at the left. Scored is every token of the value of a key that was shown before; in training every next token is a
    target, padding included, as in MAD's code, or the same as is scored (`train_on: recalled`).
    """

    predicts = "the value of each key shown before, token by token; in training every next token, unless told otherwise"
    slices = (DOCUMENT, POSITION, LENGTH, DISTANCE)
    source = "arXiv:2403.17844, MAD"

    def __init__(
        self,
        *,
        seed: int,
        vocabulary: int,
        length: int,
        batch: int,
        key_size: int = 3,
        value_size: int = 3,
        train_on: str = "every",
        examples: int | None = 12800,
        held_out: int = 1280,
    ):
        require_whole("key_size", key_size, least=1)
        require_whole("value_size", value_size, least=1)
        require_whole("vocabulary", vocabulary, least=1 + 2 * max(key_size, value_size))
        require_choice("train_on", train_on, TRAIN_ON)
        require_whole("length", length, least=2)
        if length + 1 < 2 * (key_size + value_size):
            raise ConfigError(f"length={length}: two pairs of key_size={key_size} and value_size={value_size} must fit")
        self.vocabulary = vocabulary
        self.key_size = key_size
        self.value_size = value_size
        self.train_on = train_on
        super().__init__(seed=seed, length=length, batch=batch, examples=examples, held_out=held_out)

    def draw(self, draws: Draws, segment: Segment, split: str) -> Examples:
        """Draw rows; distances are from a token of a value to where the value, told before, has it."""
        length, rows = segment.length, np.arange(len(draws))
        num_keys, most = (self.vocabulary - 1) // 2, length // 2 + 2
        key_size = np.full((len(draws), most), self.key_size)
        if split == "training":
            key_size = 1 + draws.integers(self.key_size, most)
        value_size = 1 + draws.integers(self.value_size, most)
        key = _distinct(draws, num_keys, most, self.key_size)
        value = num_keys + _distinct(draws, self.vocabulary - 1 - num_keys, most, self.value_size)
        symbol = _number(key, key_size, num_keys)

        first = first_occurrence(symbol)
        shared = np.take_along_axis(value_size, first, axis=1)
        ends = (key_size + shared).cumsum(axis=1)
        shown = ends + self.key_size + self.value_size <= length + 1
        last = shown.sum(axis=1)
        new = shown & (first == np.arange(most))
        asked = np.where(new, draws.uniform(most), 1).argmin(axis=1)
        first[rows, last] = asked
        key_size[rows, last], symbol[rows, last], key[rows, last] = (
            each[rows, asked] for each in (key_size, symbol, key)
        )
        value_size = np.take_along_axis(value_size, first, axis=1)
        value = np.take_along_axis(value, first[..., None], axis=1)

        size = key_size + value_size
        start = size.cumsum(axis=1) - size
        start += length + 1 - (start + size)[rows, last][:, None]
        seen = previous_occurrence(symbol)
        since = np.where(seen >= 0, start - np.take_along_axis(start, seen, axis=1), -1)
        laid = np.arange(most) <= last[:, None]
        tokens = np.full((len(draws), length + 1), self.vocabulary - 1)
        targets, distance = np.full_like(tokens, IGNORED), np.full_like(tokens, -1)
        for place in range(self.key_size):
            row, pair = np.nonzero(laid & (place < key_size))
            tokens[row, start[row, pair] + place] = key[row, pair, place]
        for place in range(self.value_size):
            row, pair = np.nonzero(laid & (place < value_size))
            at = start[row, pair] + key_size[row, pair] + place
            tokens[row, at] = value[row, pair, place]
            targets[row, at] = np.where(seen[row, pair] >= 0, value[row, pair, place], IGNORED)
            distance[row, at] = since[row, pair]
        if split == "training" and self.train_on == "every":
            targets = tokens
        return Examples(tokens[:, :-1].copy(), targets[:, 1:].copy(), {"distance": distance[:, 1:].copy()})


def _distinct(draws: Draws, high: int, num: int, size: int) -> Int64[np.ndarray, "n num size"]:
    """Return `num` ordered choices of `size` different numbers below `high` for each example."""
    chosen = np.empty((len(draws), num, size), dtype=np.int64)
    for place in range(size):
        rank = draws.integers(high - place, num)  # among the numbers that are left
        for before in np.moveaxis(np.sort(chosen[..., :place], axis=2), 2, 0):
            rank += rank >= before
        chosen[..., place] = rank
    return chosen


def _number(key: np.ndarray, size: np.ndarray, num_keys: int) -> Int64[np.ndarray, "n num"]:
    """Return one number for each key of so many tokens."""
    number = np.zeros_like(size)
    for place in range(key.shape[2]):
        number = number * (num_keys + 1) + np.where(place < size, key[..., place] + 1, 0)
    return number
