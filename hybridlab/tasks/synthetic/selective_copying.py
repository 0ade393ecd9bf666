"""Selective copying: some tokens among blanks, to be reproduced in order."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from hybridlab import validate
from hybridlab.errors import ConfigError
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.counter_rng import CounterRng
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, LENGTH, POSITION
from hybridlab.tasks.synthetic.base import Examples, Segment
from hybridlab.tasks.synthetic.sized import Sized


@dataclass(kw_only=True, eq=False)
class SelectiveCopying(Sized):
    """`copied` tokens below `vocabulary` - 2 with blanks scattered before them, a mark, and
    `copied` blanks for the answer.

    The blank is `vocabulary` - 2, the mark `vocabulary` - 1. Each blank of the first part precedes
    a token chosen at random, so the last token stands right before the mark (the rule of MAD's
    code). The i-th of the final blanks has the i-th token as the target at its own position.
    """

    predicts = "the tokens that are not blank, in their order, at the blanks that end the sequence"
    slices = (DOCUMENT, POSITION, LENGTH, DISTANCE)
    source = "arXiv:2403.17844, MAD; arXiv:2312.00752"

    vocabulary: int
    copied: int = 16
    held_out: int = 1280

    def __post_init__(self) -> None:
        validate.whole(least=4, vocabulary=self.vocabulary)
        validate.whole(copied=self.copied)
        validate.whole(least=4, length=self.length)
        if self.length <= 2 * self.copied + 1:
            fit = f"2 x copied + 1 = {2 * self.copied + 1}: the tokens, the mark and the answers"
            raise ConfigError(f"length={self.length}: must be above {fit}")
        super().__post_init__()

    def draw(self, rng: CounterRng, segment: Segment, split: str) -> Examples:
        """Draw examples; the distance is from a token to the position after the blank that asks for
        it."""
        copied, length = self.copied, segment.length
        num_blanks = length - 2 * copied - 1
        tokens = rng.integers(self.vocabulary - 2, copied)
        precedes = rng.integers(copied, num_blanks) + copied * np.arange(len(rng))[:, None]
        num_before = np.bincount(precedes.ravel(), minlength=tokens.size).reshape(tokens.shape)
        positions = np.arange(copied) + num_before.cumsum(axis=1)

        inputs = np.full((len(rng), length), self.vocabulary - 2)
        inputs[:, length - copied - 1] = self.vocabulary - 1
        np.put_along_axis(inputs, positions, tokens, axis=1)
        targets, distance = np.full_like(inputs, IGNORED), np.full_like(inputs, -1)
        targets[:, -copied:] = tokens
        distance[:, -copied:] = np.arange(length - copied, length) + 1 - positions
        return Examples(inputs, targets, {"distance": distance})

    def answers(self, examples: Examples) -> Int64[np.ndarray, "n a"]:
        """Return the tokens that are copied, which an example shows."""
        return examples.targets
