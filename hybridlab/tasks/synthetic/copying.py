"""Copying: a random string, a separator, and the string again."""

from collections.abc import Sequence

import numpy as np

from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.settings import require_even, require_whole
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, LENGTH, POSITION
from hybridlab.tasks.synthetic.base import Examples, Segment
from hybridlab.tasks.synthetic.draws import Draws
from hybridlab.tasks.synthetic.sized import Sized


class Copying(Sized):
    """A string of `length` / 2 tokens below `vocabulary` - 1, then the separator `vocabulary` - 1, then the string but its end.

    From the separator on, each token predicts the next of the string.
    """

    predicts = "the string once more, from the separator on"
    slices = (DOCUMENT, POSITION, LENGTH, DISTANCE)
    source = "arXiv:2402.01032"

    def __init__(
        self,
        *,
        seed: int,
        vocabulary: int,
        length: int,
        batch: int,
        examples: int | None = None,
        held_out: int = 1000,
        multiples: Sequence[int] = (1,),
    ):
        require_whole("vocabulary", vocabulary, least=3)
        require_whole("length", length, least=2)
        require_even("length", length, "a string and its copy")
        self.vocabulary = vocabulary
        super().__init__(
            seed=seed, length=length, batch=batch, examples=examples, held_out=held_out, multiples=multiples
        )

    def draw(self, draws: Draws, segment: Segment, split: str) -> Examples:
        """Draw rows; every target is as far from its place in the string, half a row and the separator."""
        half = segment.length // 2
        string = draws.integers(self.vocabulary - 1, half)
        separator = np.full((len(draws), 1), self.vocabulary - 1)
        nothing = np.full_like(string, IGNORED)
        inputs = np.concatenate([string, separator, string[:, :-1]], axis=1)
        distance = np.concatenate([np.full_like(string, -1), np.full_like(string, half + 1)], axis=1)
        return Examples(inputs, np.concatenate([nothing, string], axis=1), {"distance": distance})
