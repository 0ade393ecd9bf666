"""Tasks that generate their examples: the split of each example, and the step that trains on it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt64

from hybridlab import validate
from hybridlab.errors import ConfigError
from hybridlab.tasks.base import SPLITS, Task
from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.tasks.check import check_evaluation
from hybridlab.tasks.counter_rng import CounterRng, keys_of, mix64
from hybridlab.tasks.guess import guess
from hybridlab.tasks.relative_position import relative_position

ORDERS = ("shuffled", "published")
_GUESSED = 128  # examples of each segment that a guess is tried on
_ATTEMPTS = 400  # all fail with a chance of (7/8)^400, below 1e-23, for an example of a split that holds an eighth


class Examples(NamedTuple):
    """Generated examples of one length, before the facts that all tasks share are added."""

    inputs: Int64[np.ndarray, "n t"]
    targets: Int64[np.ndarray, "n t"]
    slices: dict[str, Int64[np.ndarray, "n t"]]


class Segment(NamedTuple):
    """A number of examples of one size; a task whose examples differ in more than length has its
    own segment type."""

    length: int
    examples: int


class Synthetic(Task):
    """A rule that generates examples, each one sequence.

    An example is a pure function of the settings, the split, its number in the split and, in
    training only, the seed. `training` and `evaluation` list the segments; those of `evaluation`
    count the examples of the validation split, and of the test split. With `fresh`, every step
    trains on new examples of the first segment. Otherwise the training examples are a fixed set,
    which each epoch goes through in another order. With `order: published` the order is always that
    of the segments, as with data loaders that don't shuffle. A batch holds examples of one segment,
    so its sequences have one length; a segment's examples that fill no whole batch wait for another
    epoch (in the published order they are never used).

    No sequence can be in two splits, whatever the seeds and the numbers of examples: a hash of its
    tokens decides its split (an eighth each for validation and test), and an example that belongs
    to another split is drawn again. A rule with so few sequences that more than a tenth of the
    held-out ones would be repeats is refused.
    """

    unit = "symbol"
    measures = ("accuracy", "example_accuracy", "nll")

    def __init__(
        self,
        *,
        seed: int,
        batch: int,
        training: Sequence[Any],
        evaluation: Sequence[Any],
        fresh: bool,
        order: str = "shuffled",
    ):
        validate.whole(least=0, seed=seed)
        validate.whole(batch=batch)
        validate.choice(ORDERS, order=order)
        for segment in () if fresh else training:
            if segment.examples < batch:
                raise ConfigError(f"examples={segment.examples}: fewer than the sequences of a step, batch={batch}")
        self.seed = seed
        self.batch = batch
        self.training = tuple(training)
        self.evaluation = tuple(evaluation)
        self.fresh = fresh
        self.order = order
        self.length = max(segment.length for segment in training)
        self._num_batches = np.array([segment.examples // batch for segment in training])
        self._epoch: tuple[int, list[tuple[int, np.ndarray]]] = (-1, [])

    def draw(self, rng: CounterRng, segment: Any, split: str) -> Examples:
        """Draw examples of a segment, one for each stream of `rng`."""
        raise NotImplementedError

    @property
    def tokens_per_step(self) -> int:
        """The number of tokens that a training step reads; the mean over an epoch if segments
        differ in length."""
        lengths = [segment.length for segment in self.training]
        return round(self.batch * float(np.average(lengths, weights=None if self.fresh else self._num_batches)))

    @property
    def training_tokens(self) -> int | None:
        """The tokens of all training examples; None where they are drawn anew without end."""
        return None if self.fresh else sum(segment.examples * segment.length for segment in self.training)

    def train_batch(self, step: int) -> Batch:
        """Draw the batch of a step: a pure function of the settings, the seed and the step."""
        if self.fresh:
            segment, numbers = 0, np.arange(step * self.batch, (step + 1) * self.batch)
        else:
            segment, numbers = self._numbers_of(step)
        size = self.training[segment]
        return self._batch(self._draw_split("training", self.seed, segment, size, numbers), size, numbers)

    def evaluation_batches(
        self, split: str, *, window: int, stride: int, limit: int | None, batch: int
    ) -> Iterator[Batch]:
        """Yield whole examples of a split, at most `limit`, spread evenly over all segments."""
        check_evaluation(split, limit, batch)
        return self._evaluation_batches(split, limit, batch)

    def answers(self, examples: Examples) -> Int64[np.ndarray, "n a"] | None:
        """Return what a guess may know of each example: its answers, each as often as it is one,
        without their order; `IGNORED` is none.

        These are the targets, if an example has several and shows them. Otherwise they are the
        tokens that its target is drawn from. None: no guess is known, and the task has no `floors`.
        """
        return None

    @property
    def floors(self) -> Mapping[str, float]:
        """What guessing among an example's `answers` reaches, from the first examples that the rule
        draws for each held-out segment."""
        found, weights, targets = [], [], []
        for segment, size in enumerate(self.evaluation):
            numbers = np.arange(min(_GUESSED, size.examples))
            drawn = self.draw(CounterRng(keys_of(SPLITS.index("test"), 0, segment, numbers)), size, "test")
            if (answers := self.answers(drawn)) is None:
                return {}
            found.append(guess(answers))
            weights.append(np.full(len(numbers), size.examples / len(numbers)))
            targets.append((drawn.targets != IGNORED).sum(axis=1))
        accuracy, nll = (np.concatenate(each) for each in zip(*found, strict=True))
        of_examples = np.concatenate(weights)
        of_targets = of_examples * np.concatenate(targets)
        return {
            "accuracy": float(np.average(accuracy, weights=of_targets)),
            "example_accuracy": float(np.average(accuracy, weights=of_examples)),
            "nll": float(np.average(nll, weights=of_targets)),
        }

    def describe(self) -> dict[str, Any]:
        """Return the numbers and sizes of the examples for the record."""
        return {
            **super().describe(),
            "training": [segment._asdict() for segment in self.training],
            "evaluation": [segment._asdict() for segment in self.evaluation],
            "fresh": self.fresh,
        }

    def _evaluation_batches(self, split: str, limit: int | None, batch: int) -> Iterator[Batch]:
        ends = np.cumsum([size.examples for size in self.evaluation])
        wanted = min(int(ends[-1]), limit or int(ends[-1]))
        chosen = np.arange(wanted) * ends[-1] // wanted
        for segment, (size, end) in enumerate(zip(self.evaluation, ends, strict=True)):
            numbers = chosen[(end - size.examples <= chosen) & (chosen < end)]
            if not len(numbers):  # fewer are wanted than there are segments
                continue
            examples = self._draw_split(split, 0, segment, size, numbers)
            # Chance repeats are part of a rule; a split full of repeats would look larger than it
            # is.
            if (found := len(np.unique(_hash(examples.inputs)))) < 0.9 * len(numbers):
                raise ConfigError(f"held_out={size.examples}: the rule draws only {found} different {split} sequences")
            for start in range(0, len(numbers), batch):
                part = slice(start, start + batch)
                yield self._batch(_select(examples, part), size, numbers[part])

    def _numbers_of(self, step: int) -> tuple[int, np.ndarray]:
        """Return the segment and the examples of a step that trains on a fixed set."""
        epoch, index = divmod(step, int(self._num_batches.sum()))
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._batches_of(epoch))
        return self._epoch[1][index]

    def _batches_of(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """Return the segment and the examples of every batch of an epoch."""
        generator = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch,)))
        batches, first = [], 0
        for segment, (size, num_batches) in enumerate(zip(self.training, self._num_batches, strict=True)):
            numbers = np.arange(first, first := first + size.examples)
            if self.order == "shuffled":
                generator.shuffle(numbers)
            batches += [(segment, part) for part in numbers[: num_batches * self.batch].reshape(-1, self.batch)]
        return [batches[n] for n in generator.permutation(len(batches))] if self.order == "shuffled" else batches

    def _draw_split(self, split: str, seed: int, segment: int, size: Any, numbers: Int64[np.ndarray, " n"]) -> Examples:
        """Draw the examples with these numbers: for each, the first attempt whose sequence belongs
        to the split."""
        keys = keys_of(SPLITS.index(split), seed, segment, numbers)
        drawn = self.draw(CounterRng(keys), size, split)
        pending = np.flatnonzero(~_belongs(drawn.inputs, split))
        for _ in range(_ATTEMPTS):
            if not len(pending):
                return drawn
            keys = mix64(keys + np.uint64(1))
            redrawn = self.draw(CounterRng(keys[pending]), size, split)
            fits = _belongs(redrawn.inputs, split)
            _assign(drawn, pending[fits], _select(redrawn, fits))
            pending = pending[~fits]
        raise ConfigError(f"length={size.length}: with these settings the rule has too few sequences to fill {split}")

    def _batch(self, examples: Examples, size: Any, numbers: Int64[np.ndarray, " n"]) -> Batch:
        shape = examples.inputs.shape
        common = {
            "document": numbers[:, None],
            "position": np.arange(shape[1]),
            "relative_position": relative_position(torch.arange(shape[1]), self.length).numpy(),
            "length": np.int64(size.length),
        }
        declared = {each.name for each in self.slices}
        facts = {name: fact for name, fact in common.items() if name in declared} | examples.slices
        return Batch(
            torch.from_numpy(examples.inputs.copy()),
            torch.from_numpy(examples.targets.copy()),
            {name: torch.from_numpy(np.broadcast_to(fact, shape).copy()) for name, fact in facts.items()},
        )


def _select(examples: Examples, index: Any) -> Examples:
    facts = {name: fact[index] for name, fact in examples.slices.items()}
    return Examples(examples.inputs[index], examples.targets[index], facts)


def _assign(examples: Examples, index: Int64[np.ndarray, " k"], part: Examples) -> None:
    examples.inputs[index] = part.inputs
    examples.targets[index] = part.targets
    for name, fact in part.slices.items():
        examples.slices[name][index] = fact


def _belongs(inputs: Int64[np.ndarray, "n t"], split: str) -> Bool[np.ndarray, " n"]:
    """Return whether each sequence belongs to the split: a function of its tokens alone."""
    eighth = _hash(inputs) >> np.uint64(61)
    return eighth > 1 if split == "training" else eighth == ("validation", "test").index(split)


def _hash(inputs: Int64[np.ndarray, "n t"]) -> UInt64[np.ndarray, " n"]:
    multipliers = keys_of(np.arange(inputs.shape[1], dtype=np.uint64)) | np.uint64(1)
    return mix64((inputs.astype(np.uint64) + np.uint64(1)) @ multipliers)
