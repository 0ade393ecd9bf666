"""Passkey: a number hidden in long real text and asked for at its end."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from hybridlab import validate
from hybridlab.errors import ConfigError
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.counter_rng import CounterRng
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, LENGTH, POSITION, RELATIVE_POSITION, Slice
from hybridlab.tasks.synthetic.base import Examples, Segment
from hybridlab.tasks.synthetic.in_text import InText

DEPTH = Slice("depth", "where in the document the needle lies, in tenths of it")

_NEEDLE = b" The pass key is ", b". Remember it. "
_QUESTION = b" What is the pass key? The pass key is "
_TENTHS = 10
TRAIN_ON = ("key", "every")


@dataclass(kw_only=True, eq=False)
class Passkey(InText):
    """Text with " The pass key is 48213. Remember it. " somewhere in it, followed by a question for
    the key.

    A training sequence has `length` bytes, question and key included; a held-out one, `multiples`
    times as many. The tenth of the text that holds the needle is drawn first, uniformly. Held-out
    targets are the `digits` of the key, each given those before it; in training the same
    (`train_on: key`) or every byte of the sequence (`train_on: every`).
    """

    predicts = "the digits of the key, at the end; in training every byte, if so set"
    slices = (DOCUMENT, POSITION, RELATIVE_POSITION, LENGTH, DISTANCE, DEPTH)
    source = "arXiv:2305.16300, section 4.2; arXiv:2404.06654"

    digits: int = 5
    multiples: Sequence[int] = (1, 2, 4, 8)
    train_on: str = "key"
    held_out: int = 100

    def __post_init__(self) -> None:
        validate.whole(digits=self.digits, length=self.length)
        least = sum(map(len, (*_NEEDLE, _QUESTION))) + 2 * self.digits + _TENTHS
        if self.length < least:
            needed = f"at least {least}, for the needle, the question, the key and some text"
            raise ConfigError(f"length={self.length}: must be {needed}")
        validate.choice(TRAIN_ON, train_on=self.train_on)
        super().__post_init__()

    def draw(self, rng: CounterRng, segment: Segment, split: str) -> Examples:
        """Draw examples; the distance is from a digit in the needle to the same digit at the
        end."""
        key = ord("0") + rng.integers(10, self.digits)
        before, after, question = (np.tile(list(text), (len(rng), 1)) for text in (*_NEEDLE, _QUESTION))
        needle = np.concatenate([before, key, after], axis=1)
        end = np.concatenate([question, key], axis=1)
        text = self.haystack.cut(rng, split, segment.length - needle.shape[1] - end.shape[1])
        depth = rng.integers(_TENTHS, 1)
        start = ((depth + rng.uniform(1)) / _TENTHS * (text.shape[1] + 1)).astype(np.int64)

        offset = np.arange(text.shape[1] + needle.shape[1]) - start  # from the start of the needle
        source = np.where(offset < 0, offset + start, offset + start - needle.shape[1])
        around = np.take_along_axis(text, np.clip(source, 0, text.shape[1] - 1), axis=1)
        within = np.take_along_axis(needle, np.clip(offset, 0, needle.shape[1] - 1), axis=1)
        text = np.where((offset >= 0) & (offset < needle.shape[1]), within, around)
        sequence = np.concatenate([text, end], axis=1)

        targets, distance = np.full_like(sequence, IGNORED), np.full_like(sequence, -1)
        targets[:, -self.digits :] = key
        distance[:, -self.digits :] = segment.length - self.digits - (start + len(_NEEDLE[0]))
        if split == "training" and self.train_on == "every":
            targets = sequence
        return Examples(
            self.haystack.inputs(sequence),
            targets,
            {"distance": distance, "depth": np.broadcast_to(depth, sequence.shape).copy()},
        )

    def answers(self, examples: Examples) -> Int64[np.ndarray, "n a"]:
        """Return the ten digits."""
        return np.tile(ord("0") + np.arange(10), (len(examples.inputs), 1))
