"""Memorization: facts that are the same in every example, so that the weights must store them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from hybridlab import validate
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.counter_rng import CounterRng
from hybridlab.tasks.slices import DOCUMENT, LENGTH, POSITION
from hybridlab.tasks.synthetic.base import Examples, Segment
from hybridlab.tasks.synthetic.sized import Sized

_FACTS = 12345  # the seed of the map from keys to values, which no run's seed changes


@dataclass(kw_only=True, eq=False)
class Memorization(Sized):
    """Random keys, each followed by a mark at which its value is the target. The value of a key
    never changes.

    Of the tokens below the mark, `vocabulary` - 1, the lower half are keys, each with its own value
    among the rest. Training and held-out sequences share the facts by design; they differ in which
    keys are asked for, and in what order.
    """

    predicts = "the value of a key, at the mark behind it"
    slices = (DOCUMENT, POSITION, LENGTH)
    source = "arXiv:2403.17844, MAD"

    vocabulary: int
    examples: int | None = 256
    held_out: int = 1280

    def __post_init__(self) -> None:
        validate.whole(least=3, vocabulary=self.vocabulary)
        validate.whole(least=2, length=self.length)
        validate.even(why="keys and marks come in pairs", length=self.length)
        num_keys = (self.vocabulary - 1) // 2
        values = np.random.default_rng(_FACTS).permutation(np.arange(num_keys, self.vocabulary - 1))
        self.value_of = values[:num_keys]
        super().__post_init__()

    def draw(self, rng: CounterRng, segment: Segment, split: str) -> Examples:
        """Draw sequences of keys."""
        keys = rng.integers(len(self.value_of), segment.length // 2)
        inputs = np.full((len(rng), segment.length), self.vocabulary - 1)
        inputs[:, ::2] = keys
        targets = np.full_like(inputs, IGNORED)
        targets[:, 1::2] = self.value_of[keys]
        return Examples(inputs, targets, {})

    def answers(self, examples: Examples) -> Int64[np.ndarray, "n a"]:
        """Return the values of all keys, for an example does not show its own."""
        return np.broadcast_to(self.value_of, (len(examples.inputs), len(self.value_of)))
