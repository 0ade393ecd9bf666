"""Which rows of the training documents a step sees."""

import numpy as np

from hybridlab.errors import ConfigError, near_miss
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.text.split import Rows, Split, joined

LENGTH_DISTRIBUTIONS = ("fixed", "uniform", "corpus")


def check_distribution(distribution: str, packed: bool) -> None:
    """Refuse a distribution of lengths that there is not, or that packed rows cannot have."""
    if distribution not in LENGTH_DISTRIBUTIONS:
        wrong = f"length_distribution={distribution}"
        raise ConfigError(f"{wrong}: no such choice; {near_miss(distribution, LENGTH_DISTRIBUTIONS)}")
    if packed and distribution != "fixed":
        raise ConfigError(f"packed={packed}: packed rows are full; length_distribution must be fixed")


class TrainingRows:
    """Rows of `length` tokens, drawn in one of four ways; what is left of a row is padding.

    - `fixed`: every start at which a whole row fits is equally likely; a document shorter than a row has one start.
    - `uniform`: as `fixed`, then cut after a number of tokens for which 1 to `length` are equally likely.
    - `corpus`: every document is equally likely; a row is the whole document, or a piece of `length` tokens at any place.
    - `fixed` and `packed`: rows are cut out of shuffled documents laid end to end, and have no padding.
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
        """Draw the rows of a step."""
        if self.packed:
            return joined([self._packed(generator) for _ in range(self.batch)], self.training)
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
        return self.training.rows(Rows(document, first, first, end, end - first), self.length)

    def _packed(self, generator: np.random.Generator) -> list[Rows]:
        """Cut a row out of shuffled documents laid end to end, at a token of one, each token equally likely."""
        start = generator.integers(self._ends[-1])
        document = int(np.searchsorted(self._ends, start, side="right"))
        first, left = int(start - self._ends[document] + self._lengths[document]), self.length
        pieces = []
        while left:
            end = min(int(self._lengths[document]), first + left)
            piece = (np.array([each]) for each in (document, first, first, end, end - first))
            pieces.append(Rows(*piece))
            left -= end - first
            document, first = int(generator.integers(len(self._lengths))), 0
        return pieces
