"""Induction: which token followed the trigger when it was last seen?"""

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
class Induction(Sized):
    """Random tokens with the trigger at a random position and at the end, where the first trigger's
    successor is asked for.

    The trigger is token `vocabulary` - 1, the others are below it. Only the last position is
    predicted.
    """

    predicts = "the token that followed the trigger, at the trigger that ends the sequence"
    slices = (DOCUMENT, POSITION, LENGTH, DISTANCE)
    source = "arXiv:2212.14052; lengths of arXiv:2312.00752, section 4.1.2"

    vocabulary: int

    def __post_init__(self) -> None:
        validate.whole(least=3, vocabulary=self.vocabulary, length=self.length)
        super().__post_init__()

    def draw(self, rng: CounterRng, segment: Segment, split: str) -> Examples:
        """Draw examples; the distance is from the target's first occurrence to the end of the
        sequence."""
        trigger, example = self.vocabulary - 1, np.arange(len(rng))
        inputs = rng.integers(trigger, segment.length)
        shown = rng.integers(segment.length - 2, 1)[:, 0]
        inputs[example, shown] = inputs[:, -1] = trigger
        targets, distance = np.full_like(inputs, IGNORED), np.full_like(inputs, -1)
        targets[:, -1] = inputs[example, shown + 1]
        distance[:, -1] = segment.length - (shown + 1)
        return Examples(inputs, targets, {"distance": distance})

    def answers(self, examples: Examples) -> Int64[np.ndarray, "n a"]:
        """Return the tokens of the sequence, any of which may follow the trigger."""
        return np.where(examples.inputs == self.vocabulary - 1, IGNORED, examples.inputs)
