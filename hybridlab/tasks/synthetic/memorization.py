"""Memorization: facts that are the same in every example, so that the weights must hold them."""

import numpy as np

from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.settings import require_even, require_whole
from hybridlab.tasks.slices import DOCUMENT, LENGTH, POSITION
from hybridlab.tasks.synthetic.base import Examples, Segment
from hybridlab.tasks.synthetic.draws import Draws
from hybridlab.tasks.synthetic.sized import Sized

_FACTS = 12345  # the seed of the map: facts are no matter of a run's seed


class Memorization(Sized):
    """Keys, drawn at random, each before a mark at which its value is the target. Which value a key has never changes.

    Of the tokens below the mark, `vocabulary` - 1, the lower half are keys, each with a value of its own among the rest.
    Training and held-out rows share the facts, as they must: what differs is which keys are asked for, and in what order.
    """

    predicts = "the value of a key, at the mark behind it"
    slices = (DOCUMENT, POSITION, LENGTH)
    source = "arXiv:2403.17844, MAD"

    def __init__(
        self,
        *,
        seed: int,
        vocabulary: int,
        length: int,
        batch: int,
        examples: int | None = 256,
        held_out: int = 1280,
    ):
        require_whole("vocabulary", vocabulary, least=3)
        require_whole("length", length, least=2)
        require_even("length", length, "keys and marks come in twos")
        self.vocabulary = vocabulary
        num_keys = (vocabulary - 1) // 2
        values = np.random.default_rng(_FACTS).permutation(np.arange(num_keys, vocabulary - 1))
        self.value_of = values[:num_keys]
        super().__init__(seed=seed, length=length, batch=batch, examples=examples, held_out=held_out)

    def draw(self, draws: Draws, segment: Segment, split: str) -> Examples:
        """Draw rows of keys."""
        keys = draws.integers(len(self.value_of), segment.length // 2)
        inputs = np.full((len(draws), segment.length), self.vocabulary - 1)
        inputs[:, ::2] = keys
        targets = np.full_like(inputs, IGNORED)
        targets[:, 1::2] = self.value_of[keys]
        return Examples(inputs, targets, {})
