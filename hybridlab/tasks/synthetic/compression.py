"""Compression: a random string that must be reconstructed from one vector."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from hybridlab import validate
from hybridlab.stack.readout import Readout
from hybridlab.tasks.counter_rng import CounterRng
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, LENGTH, POSITION
from hybridlab.tasks.synthetic.base import Examples, Segment
from hybridlab.tasks.synthetic.sized import Sized


@dataclass(kw_only=True, eq=False)
class Compression(Sized):
    """`length` - 1 tokens below `vocabulary` - 1, then the compression token, `vocabulary` - 1.

    Every token, the compression token included, is predicted from the vector of the last position,
    as in MAD's code.
    """

    predicts = "every token of the sequence, from the vector of its last position alone"
    slices = (DOCUMENT, POSITION, LENGTH, DISTANCE)
    source = "arXiv:2403.17844, MAD"
    readout = Readout.LAST_POSITION

    vocabulary: int
    examples: int | None = 12800
    held_out: int = 1280

    def __post_init__(self) -> None:
        validate.whole(least=3, vocabulary=self.vocabulary)
        validate.whole(least=2, length=self.length)
        super().__post_init__()

    def draw(self, rng: CounterRng, segment: Segment, split: str) -> Examples:
        """Draw examples; distances are measured to the end of the sequence, where all tokens are
        reconstructed."""
        string = rng.integers(self.vocabulary - 1, segment.length - 1)
        inputs = np.pad(string, ((0, 0), (0, 1)), constant_values=self.vocabulary - 1)
        distance = np.tile(segment.length - np.arange(segment.length), (len(rng), 1))
        return Examples(inputs, inputs.copy(), {"distance": distance})

    def answers(self, examples: Examples) -> Int64[np.ndarray, "n a"]:
        """Return the tokens of the sequence, which an example shows."""
        return examples.targets
