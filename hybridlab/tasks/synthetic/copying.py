"""Copying: a random string, a separator, and the string again."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from hybridlab import validate
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.counter_rng import CounterRng
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, LENGTH, POSITION
from hybridlab.tasks.synthetic.base import Examples, Segment
from hybridlab.tasks.synthetic.sized import Sized


@dataclass(kw_only=True, eq=False)
class Copying(Sized):
    """`length` / 2 tokens below `vocabulary` - 1, the separator `vocabulary` - 1, and the string
    without its last token.

    From the separator on, each token predicts the next token of the string.
    """

    predicts = "the string once more, from the separator on"
    slices = (DOCUMENT, POSITION, LENGTH, DISTANCE)
    source = "arXiv:2402.01032"

    vocabulary: int

    def __post_init__(self) -> None:
        validate.whole(least=3, vocabulary=self.vocabulary)
        validate.whole(least=2, length=self.length)
        validate.even(why="a string and its copy", length=self.length)
        super().__post_init__()

    def draw(self, rng: CounterRng, segment: Segment, split: str) -> Examples:
        """Draw examples; each target is half a sequence and the separator away from its token in
        the string."""
        half = segment.length // 2
        string = rng.integers(self.vocabulary - 1, half)
        separator = np.full((len(rng), 1), self.vocabulary - 1)
        inputs = np.concatenate([string, separator, string[:, :-1]], axis=1)
        targets = np.concatenate([np.full_like(string, IGNORED), string], axis=1)
        distance = np.concatenate([np.full_like(string, -1), np.full_like(string, half + 1)], axis=1)
        return Examples(inputs, targets, {"distance": distance})

    def answers(self, examples: Examples) -> Int64[np.ndarray, "n a"]:
        """Return the tokens of the string, which an example shows."""
        return examples.targets
