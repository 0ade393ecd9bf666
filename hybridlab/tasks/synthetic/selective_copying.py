"""Selective copying: some tokens among blanks, to be told again in their order."""

from collections.abc import Sequence

import numpy as np

from hybridlab.errors import ConfigError
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.settings import require_whole
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, LENGTH, POSITION
from hybridlab.tasks.synthetic.base import Examples, Segment
from hybridlab.tasks.synthetic.draws import Draws
from hybridlab.tasks.synthetic.sized import Sized


class SelectiveCopying(Sized):
    """`copied` tokens below `vocabulary` - 2 with blanks strewn before them, a mark, and as many blanks to answer at.

    The blank is `vocabulary` - 2, the mark `vocabulary` - 1. Each blank of the first part stands before a token chosen at
    random, so the last token stands right before the mark (the rule of MAD's code). The i-th of the last blanks has the i-th
    token as its target, at its own place.
    """

    predicts = "the tokens that are not blank, in their order, at the blanks that end the row"
    slices = (DOCUMENT, POSITION, LENGTH, DISTANCE)
    source = "arXiv:2403.17844, MAD; arXiv:2312.00752"

    def __init__(
        self,
        *,
        seed: int,
        vocabulary: int,
        length: int,
        batch: int,
        copied: int = 16,
        examples: int | None = None,
        held_out: int = 1280,
        multiples: Sequence[int] = (1,),
    ):
        require_whole("vocabulary", vocabulary, least=4)
        require_whole("copied", copied, least=1)
        require_whole("length", length, least=4)
        if length <= 2 * copied + 1:
            raise ConfigError(f"length={length}: must be above twice copied={copied} and one: tokens, mark, answers")
        self.vocabulary = vocabulary
        self.copied = copied
        super().__init__(
            seed=seed, length=length, batch=batch, examples=examples, held_out=held_out, multiples=multiples
        )

    def draw(self, draws: Draws, segment: Segment, split: str) -> Examples:
        """Draw rows; distances are from a token to the place behind the blank that asks for it."""
        copied, length = self.copied, segment.length
        num_blanks = length - 2 * copied - 1
        tokens = draws.integers(self.vocabulary - 2, copied)
        stands_before = draws.integers(copied, num_blanks) + copied * np.arange(len(draws))[:, None]
        num_before = np.bincount(stands_before.ravel(), minlength=tokens.size).reshape(tokens.shape)
        places = np.arange(copied) + num_before.cumsum(axis=1)

        inputs = np.full((len(draws), length), self.vocabulary - 2)
        inputs[:, length - copied - 1] = self.vocabulary - 1
        np.put_along_axis(inputs, places, tokens, axis=1)
        targets, distance = np.full_like(inputs, IGNORED), np.full_like(inputs, -1)
        targets[:, -copied:] = tokens
        distance[:, -copied:] = np.arange(length - copied, length) + 1 - places
        return Examples(inputs, targets, {"distance": distance})
