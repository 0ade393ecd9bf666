"""ListOps: the value of a nested list of digits and operators."""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from typing import Any

import numpy as np

from hybridlab import validate
from hybridlab.errors import ConfigError
from hybridlab.tasks.base import SPLITS
from hybridlab.tasks.lra.classification import Classification, Example
from hybridlab.tasks.lra.listops_trees import PADDING, VOCABULARY, grow

_TREES = 256  # drawn at a time
_ROUNDS = 200  # draws without an example after which such lists count as too rare


class ListOps(Classification):
    """Predict the value, 0 to 9, of a list such as [MAX 4 3 [MIN 2 3] 1 0].

    A list is an operator and 2 to `max_args` arguments. An argument above `max_depth` is a list
    with probability 1/4, and otherwise a digit. Operators (MIN, MAX, MED: the median rounded down,
    SM: the sum modulo 10), digits and numbers of arguments are uniform. Lists of `min_length` to
    `length` tokens are kept. An operator with its opening bracket is one token; so is a digit, and
    a closing bracket.

    Training examples are fresh at every step. A hash of a list's tokens decides its split, an
    eighth each for validation and test, so that no list can be in two splits, whatever the seeds.
    `held_out` is the size of the validation split, and of the test split.
    """

    predicts = "the value of the whole list, once a sequence, from all its tokens"
    source = "ListOps, arXiv:1804.06028; lengths and depth of the Long Range Arena, arXiv:2011.04006"
    unit = "symbol"
    vocabulary = VOCABULARY
    padding = PADDING
    classes = 10

    def __init__(
        self,
        *,
        seed: int,
        length: int = 2000,
        batch: int = 32,
        min_length: int = 500,
        max_depth: int = 10,
        max_args: int = 10,
        held_out: int = 2000,
    ) -> None:
        super().__init__(seed=seed, length=length, batch=batch)
        validate.whole(min_length=min_length, held_out=held_out)
        validate.whole(least=2, max_depth=max_depth, max_args=max_args)
        if min_length > length:
            raise ConfigError(f"min_length={min_length}: must be at most length={length}")
        self.min_length = min_length
        self.max_depth = max_depth
        self.max_args = max_args
        self.num_held_out = held_out
        self._held_out: dict[str, list[Example]] = {}
        # Refuse settings whose lists are too rare now, not at a step: a shallow tree of few
        # arguments is never long.
        next(self._examples(np.random.default_rng(0), "training"))

    def draw(self, generator: np.random.Generator, count: int) -> Sequence[Example]:
        """Draw fresh examples of the training split."""
        return list(islice(self._examples(generator, "training"), count))

    def held_out(self, split: str, limit: int | None) -> Iterable[Example]:
        """Return the first examples of the split's own stream, which does not depend on the run's
        seed; those that were drawn before are kept."""
        wanted = min(self.num_held_out, limit or self.num_held_out)
        if len(self._held_out.get(split, ())) < wanted:
            generator = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(SPLITS.index(split), 0)))
            self._held_out[split] = list(islice(self._examples(generator, split), wanted))
        return self._held_out[split][:wanted]

    def describe(self) -> dict[str, Any]:
        """Return the settings that the examples are drawn with."""
        names = ("min_length", "length", "max_depth", "max_args")
        return {**super().describe(), **{name: getattr(self, name) for name in names}, "held_out": self.num_held_out}

    def _examples(self, generator: np.random.Generator, split: str) -> Iterator[Example]:
        """Yield the lists of a split in the order in which they are drawn."""
        fruitless = 0
        while fruitless < _ROUNDS:
            fruitless += 1
            for tokens, value in grow(generator, _TREES, self.max_depth, self.max_args, self.min_length, self.length):
                if _split_of(tokens) == split:
                    fruitless = 0
                    yield Example((tokens,), value)
        raise ConfigError(
            f"min_length={self.min_length}: lists of {self.min_length} to {self.length} tokens are too rare with "
            f"max_depth={self.max_depth} and max_args={self.max_args}"
        )


def _split_of(tokens: np.ndarray) -> str:
    """Return the split of a list: a function of its tokens alone."""
    eighth = int.from_bytes(sha256(tokens.tobytes()).digest()[:1], "big") % 8
    return ("validation", "test")[eighth] if eighth < 2 else "training"
