"""ListOps: the value of a nested list of digits and operators."""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from typing import Any

import numpy as np

from hybridlab.errors import ConfigError
from hybridlab.tasks.base import SPLITS
from hybridlab.tasks.lra.classification import Classification, Example
from hybridlab.tasks.lra.listops_trees import PADDING, VOCABULARY, grow
from hybridlab.tasks.settings import require_whole

_TREES = 256  # grown at a time
_ROUNDS = 200  # after so many without an example, there is hardly any to be found


class ListOps(Classification):
    """Tell the value, 0 to 9, of a list such as [MAX 4 3 [MIN 2 3] 1 0].

    A list is an operator and 2 to `max_args` arguments: each is a list again with probability 1/4, unless it stands at
    `max_depth`, and else a digit. Operators (MIN, MAX, MED: the median rounded down, SM: the sum modulo 10), digits and
    numbers of arguments are uniform. Lists of `min_length` to `length` tokens are kept; an operator with its opening bracket
    is one token, and so are a digit and a closing bracket.

    Training examples are fresh at every step. A hash of its tokens decides which split a list is of, an eighth each for
    validation and test, so that no list can be in two of them, whatever the seeds. `held_out` is the size of the validation
    split, and of the test split.
    """

    predicts = "the value of the whole list, once a row, from all its tokens"
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
        require_whole("min_length", min_length, least=1)
        require_whole("max_depth", max_depth, least=2)
        require_whole("max_args", max_args, least=2)
        require_whole("held_out", held_out, least=1)
        if min_length > length:
            raise ConfigError(f"min_length={min_length}: must be at most length={length}")
        self.min_length = min_length
        self.max_depth = max_depth
        self.max_args = max_args
        self.num_held_out = held_out
        # Refuses here, and not at a step, what can hardly be drawn: a shallow tree of few arguments is never long.
        next(self._examples(np.random.default_rng(0), "training"))

    def draw(self, generator: np.random.Generator, count: int) -> Sequence[Example]:
        """Draw fresh examples of the training split."""
        return list(islice(self._examples(generator, "training"), count))

    def held_out(self, split: str, limit: int | None) -> Iterable[Example]:
        """Return the first examples of a split's own stream, which no seed of the run changes."""
        generator = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(SPLITS.index(split), 0)))
        return islice(self._examples(generator, split), min(self.num_held_out, limit or self.num_held_out))

    def describe(self) -> dict[str, Any]:
        """Return what the examples are drawn by."""
        names = ("min_length", "length", "max_depth", "max_args")
        return {**{name: getattr(self, name) for name in names}, "held_out": self.num_held_out}

    def _examples(self, generator: np.random.Generator, split: str) -> Iterator[Example]:
        """Yield the lists of a split, as they come."""
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
