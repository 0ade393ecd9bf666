"""Induction: what followed the trigger when it was last seen?"""

from collections.abc import Sequence

import numpy as np

from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.settings import require_whole
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, LENGTH, POSITION
from hybridlab.tasks.synthetic.base import Examples, Segment
from hybridlab.tasks.synthetic.draws import Draws
from hybridlab.tasks.synthetic.sized import Sized


class Induction(Sized):
    """Random tokens with a trigger at a random place and at the end: the target is what followed the first trigger.

    The trigger is token `vocabulary` - 1, the others are below it. Only the end of a row is predicted.
    """

    predicts = "the token that followed the trigger, at the trigger that ends the row"
    slices = (DOCUMENT, POSITION, LENGTH, DISTANCE)
    source = "arXiv:2212.14052; lengths of arXiv:2312.00752, section 4.1.2"

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
        require_whole("length", length, least=3)
        self.vocabulary = vocabulary
        super().__init__(
            seed=seed, length=length, batch=batch, examples=examples, held_out=held_out, multiples=multiples
        )

    def draw(self, draws: Draws, segment: Segment, split: str) -> Examples:
        """Draw rows; the distance is from the token asked for to the place behind the row."""
        trigger, rows = self.vocabulary - 1, np.arange(len(draws))
        inputs = draws.integers(trigger, segment.length)
        shown = draws.integers(segment.length - 2, 1)[:, 0]
        inputs[rows, shown] = inputs[:, -1] = trigger
        targets, distance = np.full_like(inputs, IGNORED), np.full_like(inputs, -1)
        targets[:, -1] = inputs[rows, shown + 1]
        distance[:, -1] = segment.length - (shown + 1)
        return Examples(inputs, targets, {"distance": distance})
