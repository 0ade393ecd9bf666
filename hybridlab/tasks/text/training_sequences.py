"""The sequences of the training documents that a step trains on."""

import numpy as np

from hybridlab import validate
from hybridlab.errors import ConfigError
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.text.split import Spans, Split, pack

LENGTH_DISTRIBUTIONS = ("fixed", "uniform", "corpus")


def check_distribution(distribution: str, packed: bool) -> None:
    """Validate the name of the length distribution, and that packed sequences have `fixed`
    lengths."""
    validate.choice(LENGTH_DISTRIBUTIONS, length_distribution=distribution)
    if packed and distribution != "fixed":
        raise ConfigError(f"packed={packed}: packed sequences are full; length_distribution must be fixed")


class TrainingSequences:
    """Sequences of `length` tokens, sampled in one of four ways and padded on the right.

    - `fixed`: every start at which a whole sequence fits is equally likely; a shorter document has
      one start.
    - `uniform`: as `fixed`, then truncated to a number of tokens drawn uniformly from 1 to
      `length`.
    - `corpus`: every document is equally likely; a sequence is the whole document, or `length`
      tokens of it from a random start.
    - `fixed` and `packed`: sequences are cut from shuffled documents laid end to end, without
      padding.
    """

    def __init__(self, training: Split, *, length: int, batch: int, distribution: str, packed: bool):
        self.training = training
        self.length = length
        self.batch = batch
        self.distribution = distribution
        self.packed = packed
        self._lengths = training.lengths
        if length > self._lengths.max():
            longest = f"the longest has {self._lengths.max()} {training.tokeniser.unit}s"
            raise ConfigError(f"length={length}: longer than every training document; {longest}")
        self._ends_of_starts = np.cumsum(np.maximum(self._lengths - length + 1, 1))
        self._ends = self._lengths.cumsum()

    def draw(self, generator: np.random.Generator) -> Batch:
        """Draw the sequences of a step."""
        if self.packed:
            return pack([self._segments(generator) for _ in range(self.batch)], self.training)
        if self.distribution == "corpus":
            document = generator.integers(len(self._lengths), size=self.batch)
            first = generator.integers(np.maximum(self._lengths[document] - self.length + 1, 1))
        else:
            start = generator.integers(self._ends_of_starts[-1], size=self.batch)
            document = np.searchsorted(self._ends_of_starts, start, side="right")
            first = start - np.where(document == 0, 0, self._ends_of_starts[document - 1])
        most = self.length
        if self.distribution == "uniform":
            most = generator.integers(1, self.length, size=self.batch, endpoint=True)
        end = np.minimum(first + most, self._lengths[document])
        return self.training.sequences(Spans(document, first, first, end, end - first), self.length)

    def _segments(self, generator: np.random.Generator) -> list[Spans]:
        """Cut a sequence from shuffled documents laid end to end; every token is an equally likely
        start."""
        start = generator.integers(self._ends[-1])
        document = int(np.searchsorted(self._ends, start, side="right"))
        first, left = int(start - self._ends[document] + self._lengths[document]), self.length
        segments = []
        while left:
            end = min(int(self._lengths[document]), first + left)
            segments.append(Spans(*(np.array([each]) for each in (document, first, first, end, end - first))))
            left -= end - first
            document, first = int(generator.integers(len(self._lengths))), 0
        return segments
