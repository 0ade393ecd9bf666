"""Tasks of an encoder: one class for each sequence."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from hybridlab import validate
from hybridlab.stack.readout import Readout
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.check import check_evaluation
from hybridlab.tasks.guess import guess
from hybridlab.tasks.slices import DOCUMENT, LENGTH, POSITION

_GUESSED = 512  # examples that a guess is tried on, where classes are not known beforehand


class Example(NamedTuple):
    """A text and its class, or two texts to be compared and the class of the pair."""

    texts: tuple[UInt8[np.ndarray, " _"], ...]
    label: int


class LazyExamples(Sequence[Example]):
    """Examples that stay on disk and are read one by one; a file that changed since the first look
    at it is refused."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """A digest of all examples."""

    @abstractmethod
    def read(self, index: int) -> Example:
        """Read one example from disk."""

    @property
    @abstractmethod
    def labels(self) -> Int64[np.ndarray, " n"]:
        """The class of each example, which is read without it."""

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            return [self.read(each) for each in range(*index.indices(len(self)))]
        return self.read(range(len(self))[index])  # an IndexError past the end, which ends an iteration


class Classification(Task):
    """Predict the class of each sequence from all its tokens; the rest of a sequence is padding.

    A text is truncated to `length` tokens, each text of a pair to half of that. Training sequences
    are padded to `length`, held-out ones to the longest of their batch.
    """

    causal = False
    readout = Readout.SEQUENCE_MEAN
    measures = ("accuracy", "nll")
    slices = (DOCUMENT, POSITION, LENGTH)
    padding: int = 0  # the token of padding

    def __init__(self, *, seed: int, length: int, batch: int) -> None:
        validate.whole(least=0, seed=seed)
        validate.whole(least=2 if self._is_pair else 1, length=length)
        validate.whole(batch=batch)
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
        """Return the examples of a split to evaluate on, at most `limit`."""
        raise NotImplementedError

    def labels(self, split: str) -> Int64[np.ndarray, " n"]:
        """Return the classes of the examples of a split, or of enough of them to estimate their
        frequencies."""
        return np.array([example.label for example in self.held_out(split, _GUESSED)])

    @property
    def floors(self) -> Mapping[str, float]:
        """What guessing by the frequencies of the classes reaches."""
        found = guess(self.labels("test")[None])
        return {"accuracy": float(found.accuracy[0]), "nll": float(found.nll[0])}

    def train_batch(self, step: int) -> Batch:
        """Draw the batch of a step: a pure function of the task's settings, its seed and the
        step."""
        generator = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(step,)))
        return self._batch(self.draw(generator, self.batch), first=0, length=self.length)

    def evaluation_batches(
        self, split: str, *, window: int, stride: int, limit: int | None, batch: int
    ) -> Iterator[Batch]:
        """Yield whole examples of a split, at most `limit`."""
        check_evaluation(split, limit, batch)
        return self._evaluation_batches(iter(self.held_out(split, limit)), batch)

    def _evaluation_batches(self, examples: Iterator[Example], batch: int) -> Iterator[Batch]:
        first = 0
        while some := list(islice(examples, batch)):
            yield self._batch(some, first, length=None)
            first += len(some)

    def _batch(self, examples: Sequence[Example], first: int, length: int | None) -> Batch:
        """Pad the examples, numbered from `first`, to `length` tokens, or to the longest of
        them."""
        most = self.length // 2 if self._is_pair else self.length
        texts = [[text[:most] for text in example.texts] for example in examples]
        lengths = np.array([sum(map(len, each)) for each in texts])
        tokens = np.full((len(texts), length or max(1, lengths.max())), self.padding)
        documents = np.full(tokens.shape, -1)
        for index, each in enumerate(texts):
            tokens[index, : lengths[index]] = np.concatenate(each)
            documents[index, : lengths[index]] = np.repeat(np.arange(len(each)), [len(text) for text in each])
        facts = {
            "document": first + np.arange(len(texts)),
            "position": np.maximum(lengths - 1, 0),  # the class is known after the last token
            "length": lengths,
        }
        return Batch(
            torch.from_numpy(tokens),
            torch.tensor([example.label for example in examples]),
            {name: torch.from_numpy(values) for name, values in facts.items()},
            torch.from_numpy(documents) if self._is_pair or documents.any() else None,
        )


class Stored(Classification):
    """A fixed set of examples, `splits`, sampled with replacement in training, each with equal
    probability."""

    content_settings = ("path",)
    splits: dict[str, Sequence[Example]]

    def content(self) -> str:
        """Return the digest of the texts and classes of all splits, as they were read."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for name in sorted(self.splits):
            examples = self.splits[name]
            if isinstance(examples, LazyExamples):
                digest.update(f"{name} {examples.digest}".encode())
                continue
            digest.update(f"{name} {len(examples)}".encode())
            for texts, label in examples:
                digest.update(repr((label, *map(len, texts))).encode())
                for text in texts:
                    digest.update(np.ascontiguousarray(text).data)
        return digest.hexdigest()

    @property
    def training_tokens(self) -> int:
        """The tokens of all training examples, padding included."""
        return len(self.splits["training"]) * self.length

    def draw(self, generator: np.random.Generator, count: int) -> Sequence[Example]:
        """Draw training examples."""
        training = self.splits["training"]
        return [training[number] for number in generator.integers(len(training), size=count).tolist()]

    def held_out(self, split: str, limit: int | None) -> Iterable[Example]:
        """Return the examples of a split; `limit` of them are spread evenly over it, since files
        may be sorted by class."""
        examples = self.splits[split]
        wanted = min(len(examples), limit or len(examples))
        return (examples[number * len(examples) // wanted] for number in range(wanted))

    def labels(self, split: str) -> Int64[np.ndarray, " n"]:
        """Return the classes of all examples of a split."""
        examples = self.splits[split]
        if isinstance(examples, LazyExamples):
            return examples.labels
        return np.array([example.label for example in examples])

    def describe(self) -> dict[str, Any]:
        """Return the number of examples of each split."""
        return {**super().describe(), "examples": {name: len(examples) for name, examples in self.splits.items()}}
