"""Passkey: a number hidden in long real text, asked for at its end."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridlab.errors import ConfigError
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.settings import require_choice, require_whole
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, LENGTH, POSITION, RELATIVE_POSITION, Slice
from hybridlab.tasks.synthetic.base import Examples, Segment
from hybridlab.tasks.synthetic.draws import Draws
from hybridlab.tasks.synthetic.sized import Sized
from hybridlab.tasks.text.haystack import VOCABULARY, Haystack

DEPTH = Slice("depth", "where in the document the needle lies, in tenths of it")

_NEEDLE = b" The pass key is ", b". Remember it. "
_QUESTION = b" What is the pass key? The pass key is "
_TENTHS = 10
TRAIN_ON = ("key", "every")


class Passkey(Sized):
    """Text with " The pass key is 48213. Remember it. " somewhere in it, and a question for the key behind it.

    A row has `length` bytes, question and key included, in training; in evaluation, `multiples` times as many. The tenth of
    the text that the needle lies in is drawn first, each as likely. Scored are the key's `digits` alone, each with those
    before it given; in training too (`train_on: key`), or else every byte of the row. The text is of the row's split.
    """

    predicts = "the digits of the key, at the end; in training every byte, if told so"
    slices = (DOCUMENT, POSITION, RELATIVE_POSITION, LENGTH, DISTANCE, DEPTH)
    source = "arXiv:2305.16300, section 4.2; arXiv:2404.06654"
    unit = "byte"
    vocabulary = VOCABULARY

    def __init__(
        self,
        *,
        seed: int,
        length: int,
        batch: int,
        path: str | None = None,
        digits: int = 5,
        multiples: Sequence[int] = (1, 2, 4, 8),
        train_on: str = "key",
        examples: int | None = None,
        held_out: int = 100,
        validation_share: float = 0.1,
        test_share: float = 0.1,
    ):
        require_whole("digits", digits, least=1)
        require_whole("length", length, least=1)
        least = sum(map(len, (*_NEEDLE, _QUESTION))) + 2 * digits + _TENTHS
        if length < least:
            raise ConfigError(f"length={length}: must be at least {least}, for needle, question, key and some text")
        require_choice("train_on", train_on, TRAIN_ON)
        self.digits = digits
        self.train_on = train_on
        self.haystack = Haystack(path, validation_share, test_share)
        self.bytes_of_token = self.haystack.bytes_of_token
        super().__init__(
            seed=seed, length=length, batch=batch, examples=examples, held_out=held_out, multiples=multiples
        )

    def draw(self, draws: Draws, segment: Segment, split: str) -> Examples:
        """Draw rows; distances are from a digit in the needle to the same digit at the end."""
        key = ord("0") + draws.integers(10, self.digits)
        before, after, question = (np.tile(list(text), (len(draws), 1)) for text in (*_NEEDLE, _QUESTION))
        needle = np.concatenate([before, key, after], axis=1)
        end = np.concatenate([question, key], axis=1)
        text = self.haystack.cut(draws, split, segment.length - needle.shape[1] - end.shape[1])
        depth = draws.integers(_TENTHS, 1)
        start = ((depth + draws.uniform(1)) / _TENTHS * (text.shape[1] + 1)).astype(np.int64)

        place = np.arange(text.shape[1] + needle.shape[1]) - start  # counted from where the needle starts
        hidden = np.where(place < 0, place + start, place + start - needle.shape[1])
        text = np.take_along_axis(text, np.clip(hidden, 0, text.shape[1] - 1), axis=1)
        within = np.take_along_axis(needle, np.clip(place, 0, needle.shape[1] - 1), axis=1)
        text = np.where((place >= 0) & (place < needle.shape[1]), within, text)
        row = np.concatenate([text, end], axis=1)

        targets, distance = np.full_like(row, IGNORED), np.full_like(row, -1)
        targets[:, -self.digits :] = key
        distance[:, -self.digits :] = segment.length - self.digits - (start + len(_NEEDLE[0]))
        if split == "training" and self.train_on == "every":
            targets = row
        return Examples(
            self.haystack.inputs(row),
            targets,
            {"distance": distance, "depth": np.broadcast_to(depth, row.shape).copy()},
        )

    def describe(self) -> dict[str, Any]:
        """Facts about the examples and the corpus for the record."""
        return {**super().describe(), "corpus": self.haystack.facts}
