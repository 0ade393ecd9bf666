"""Compression: a random string, to be told again after it has ended."""

import numpy as np

from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.draws import Draws
from hybridlab.tasks.settings import require_even, require_whole
from hybridlab.tasks.sized import Sized
from hybridlab.tasks.synthetic import Examples, Segment


class Compression(Sized):
    """A string of `length` / 2 tokens below `vocabulary` - 1, then as many compression tokens, `vocabulary` - 1, to tell it at.

    MAD's network is an autoencoder here: it reads the string and one compression token, and a perceptron tells every
    token from that one vector and the token's place. A decoder has no such perceptron, so the string is told at further
    compression tokens. What a state must hold is the same; a mixer that looks back, though, may look past the compression
    token. The numbers are not MAD's for such mixers, nor is the score that they enter.
    """

    supervised = "the string once more, at the compression tokens behind it"
    slices = ("document", "position", "length", "distance")
    source = "arXiv:2403.17844, MAD; as a decoder"

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
        require_even("length", length, "a string and as many places to tell it at")
        self.vocabulary = vocabulary
        super().__init__(seed=seed, length=length, batch=batch, examples=examples, held_out=held_out)

    def draw(self, draws: Draws, segment: Segment, split: str) -> Examples:
        """Draw rows; every target is half a row and one away from its place in the string."""
        half = segment.length // 2
        string = draws.integers(self.vocabulary - 1, half)
        inputs = np.concatenate([string, np.full_like(string, self.vocabulary - 1)], axis=1)
        targets = np.concatenate([np.full_like(string, IGNORED), string], axis=1)
        distance = np.concatenate([np.full_like(string, -1), np.full_like(string, half + 1)], axis=1)
        return Examples(inputs, targets, {"distance": distance})
