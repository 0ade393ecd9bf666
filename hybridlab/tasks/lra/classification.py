"""Tasks of an encoder: which class a row is of."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8

from hybridlab.stack.readout import Readout
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.settings import check_evaluation, require_whole
from hybridlab.tasks.slices import DOCUMENT, LENGTH, POSITION


class Example(NamedTuple):
    """What is classified: a text, or two that are compared, and its class."""

    texts: tuple[UInt8[np.ndarray, " t"], ...]
    label: int


class Classification(Task):
    """Tell the class of each row from all its tokens; what is left of a row is padding, of no document.

    A text is cut to `length`, and each of a pair to half of it. Training rows are padded to `length`, held-out ones to the
    longest of their batch.
    """

    causal = False
    readout = Readout.SEQUENCE_MEAN
    measures = ("accuracy", "nll")
    slices = (DOCUMENT, POSITION, LENGTH)
    padding: int = 0  # the token of no document

    def __init__(self, *, seed: int, length: int, batch: int) -> None:
        require_whole("seed", seed, least=0)
        require_whole("length", length, least=2 if self._is_pair else 1)
        require_whole("batch", batch, least=1)
        self.seed = seed
        self.length = length
        self.batch = batch

    @property
    def _is_pair(self) -> bool:
        return self.readout == Readout.PAIR_OF_MEANS

    def draw(self, generator: np.random.Generator, count: int) -> Sequence[Example]:
        """Draw training examples."""
        raise NotImplementedError

    def held_out(self, split: str, limit: int | None) -> Iterable[Example]:
        """Return the examples of a split that are scored, at most `limit` of them."""
        raise NotImplementedError

    def train_batch(self, step: int) -> Batch:
        """Draw the rows of a step: a pure function of the task's settings, its seed and the step."""
        generator = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(step,)))
        return self._batch(self.draw(generator, self.batch), first=0, length=self.length)

    def evaluation_batches(
        self, split: str, *, window: int, stride: int, limit: int | None, batch: int
    ) -> Iterator[Batch]:
        """Yield the examples of a split, at most `limit` of them; rows are whole."""
        check_evaluation(split, limit, batch)
        return self._evaluated(iter(self.held_out(split, limit)), batch)

    def _evaluated(self, examples: Iterator[Example], batch: int) -> Iterator[Batch]:
        first = 0
        while some := list(islice(examples, batch)):
            yield self._batch(some, first, length=None)
            first += len(some)

    def _batch(self, examples: Sequence[Example], first: int, length: int | None) -> Batch:
        """Lay the examples numbered from `first` into rows of `length` tokens, or of as many as the longest has."""
        most = self.length // 2 if self._is_pair else self.length
        texts = [[text[:most] for text in example.texts] for example in examples]
        lengths = np.array([sum(map(len, each)) for each in texts])
        tokens = np.full((len(texts), length or max(1, lengths.max())), self.padding)
        documents = np.full(tokens.shape, -1)
        for row, each in enumerate(texts):
            tokens[row, : lengths[row]] = np.concatenate(each)
            documents[row, : lengths[row]] = np.repeat(np.arange(len(each)), [len(text) for text in each])
        facts = {
            "document": first + np.arange(len(texts)),
            "position": np.maximum(lengths - 1, 0),  # a class is told after the last token
            "length": lengths,
        }
        return Batch(
            torch.from_numpy(tokens),
            torch.tensor([example.label for example in examples]),
            {name: torch.from_numpy(values) for name, values in facts.items()},
            torch.from_numpy(documents) if self._is_pair or documents.any() else None,
        )


class Stored(Classification):
    """Examples that are kept: `splits` has those of each split, read as they are asked for.

    Training rows are drawn with replacement, each example equally likely.
    """

    splits: dict[str, Sequence[Example]]

    def draw(self, generator: np.random.Generator, count: int) -> Sequence[Example]:
        """Draw training examples."""
        training = self.splits["training"]
        return [training[number] for number in generator.integers(len(training), size=count)]

    def held_out(self, split: str, limit: int | None) -> Iterable[Example]:
        """Yield the examples of a split; `limit` of them are spread evenly over it, for files may be sorted by class."""
        examples = self.splits[split]
        wanted = min(len(examples), limit or len(examples))
        return (examples[number * len(examples) // wanted] for number in range(wanted))

    def describe(self) -> dict[str, Any]:
        """Return how many examples each split has."""
        return {"examples": {name: len(examples) for name, examples in self.splits.items()}}
