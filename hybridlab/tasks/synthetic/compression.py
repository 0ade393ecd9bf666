"""Compression: a random string, to be told again from one vector."""

import numpy as np

from hybridlab.stack.readout import Readout
from hybridlab.tasks.settings import require_whole
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, LENGTH, POSITION
from hybridlab.tasks.synthetic.base import Examples, Segment
from hybridlab.tasks.synthetic.draws import Draws
from hybridlab.tasks.synthetic.sized import Sized


class Compression(Sized):
    """`length` - 1 tokens below `vocabulary` - 1, then the compression token, `vocabulary` - 1.

    The vector of that last position must tell every token of the row, the compression token included, as in MAD's code.
    """

    predicts = "every token of the row, from the vector at its last position alone"
    slices = (DOCUMENT, POSITION, LENGTH, DISTANCE)
    source = "arXiv:2403.17844, MAD"
    readout = Readout.LAST_POSITION

    def __init__(
        self,
        *,
        seed: int,
        vocabulary: int,
        length: int,
        batch: int,
        examples: int | None = 12800,
        held_out: int = 1280,
    ):
        require_whole("vocabulary", vocabulary, least=3)
        require_whole("length", length, least=2)
        self.vocabulary = vocabulary
        super().__init__(seed=seed, length=length, batch=batch, examples=examples, held_out=held_out)

    def draw(self, draws: Draws, segment: Segment, split: str) -> Examples:
        """Draw rows; distances are to the place behind the row, where all of it is told."""
        string = draws.integers(self.vocabulary - 1, segment.length - 1)
        inputs = np.pad(string, ((0, 0), (0, 1)), constant_values=self.vocabulary - 1)
        distance = np.tile(segment.length - np.arange(segment.length), (len(draws), 1))
        return Examples(inputs, inputs.copy(), {"distance": distance})
