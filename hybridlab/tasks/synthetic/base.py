"""Tasks whose examples are drawn by a rule: which example is of which split, and when it is trained on."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt64

from hybridlab.errors import ConfigError
from hybridlab.tasks.base import SPLITS, Task
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.relative_position import relative_position
from hybridlab.tasks.settings import check_evaluation, require_choice, require_whole
from hybridlab.tasks.synthetic.draws import Draws, keyed, mixed

ORDERS = ("shuffled", "published")
_ATTEMPTS = 400  # at which an example of a split of an eighth is found but for (7/8)^400, below 1e-23


class Examples(NamedTuple):
    """Rows of one length: a batch of a rule's examples, before the facts that all tasks have are added."""

    inputs: Int64[np.ndarray, "n t"]
    targets: Int64[np.ndarray, "n t"]
    slices: dict[str, Int64[np.ndarray, "n t"]]


class Segment(NamedTuple):
    """So many examples of one size; a rule whose size is more than a length has a segment type of its own."""

    length: int
    examples: int


class Synthetic(Task):
    """A rule that draws examples, each a row of its own.

    An example is a pure function of the settings, the split, its number in the split and, in training alone, the seed.
    `examples` is how many there are to train on, gone through again in another order each epoch (`order: published`: always
    in order, segment after segment, as loaders that do not shuffle have it); null means fresh examples at every step.
    `held_out` is how many the validation split has, and the test split. A batch is of one segment, so its rows are of one
    length; what is left of a segment when no whole batch remains waits for another epoch (in the published order: in vain).

    No row can be in two splits: a hash of the row's tokens decides which split it belongs to (an eighth each to validation
    and test), and a draw that belongs elsewhere is drawn again. That holds for any two seeds, and for numbers of examples
    that differ. A rule with so few rows that more than a tenth of the held-out ones would be repeats is refused.
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
        require_whole("seed", seed, least=0)
        require_whole("batch", batch, least=1)
        require_choice("order", order, ORDERS)
        for segment in () if fresh else training:
            if segment.examples < batch:
                raise ConfigError(f"examples={segment.examples}: fewer than the rows of a step, batch={batch}")
        self.seed = seed
        self.batch = batch
        self.training = tuple(training)
        self.evaluation = tuple(evaluation)
        self.fresh = fresh
        self.order = order
        self.length = max(segment.length for segment in training)
        self._batches = np.array([segment.examples // batch for segment in training])
        self._epoch: tuple[int, list[tuple[int, np.ndarray]]] = (-1, [])

    def draw(self, draws: Draws, segment: Any, split: str) -> Examples:
        """Draw examples of a segment, one for each stream of `draws`."""
        raise NotImplementedError

    @property
    def tokens_per_step(self) -> int:
        """The tokens that a training step reads; of segments of several lengths, their mean over an epoch."""
        lengths = [segment.length for segment in self.training]
        return round(self.batch * float(np.average(lengths, weights=None if self.fresh else self._batches)))

    def train_batch(self, step: int) -> Batch:
        """Draw the rows of a step; a pure function of the settings, the seed and the step."""
        if self.fresh:
            segment, numbers = 0, np.arange(step * self.batch, (step + 1) * self.batch)
        else:
            segment, numbers = self._scheduled(step)
        size = self.training[segment]
        return self._batch(self._drawn("training", self.seed, segment, size, numbers), size, numbers)

    def evaluation_batches(
        self, split: str, *, window: int, stride: int, limit: int | None, batch: int
    ) -> Iterator[Batch]:
        """Yield the examples of a split, at most `limit` of them, evenly from all segments; rows are whole."""
        check_evaluation(split, limit, batch)
        return self._evaluated(split, limit, batch)

    def describe(self) -> dict[str, Any]:
        """Facts about the examples for the record."""
        return {
            "training": [segment._asdict() for segment in self.training],
            "evaluation": [segment._asdict() for segment in self.evaluation],
            "fresh": self.fresh,
        }

    def _evaluated(self, split: str, limit: int | None, batch: int) -> Iterator[Batch]:
        ends = np.cumsum([size.examples for size in self.evaluation])
        wanted = min(int(ends[-1]), limit or int(ends[-1]))
        chosen = np.arange(wanted) * ends[-1] // wanted
        for segment, (size, end) in enumerate(zip(self.evaluation, ends, strict=True)):
            numbers = chosen[(end - size.examples <= chosen) & (chosen < end)]
            examples = self._drawn(split, 0, segment, size, numbers)
            # Chance repeats are a rule's own; a split made of repeats would pass for more examples than it is.
            if (found := len(np.unique(_digest(examples.inputs)))) < 0.9 * len(numbers):
                raise ConfigError(f"held_out={size.examples}: the rule draws only {found} different rows of {split}")
            for start in range(0, len(numbers), batch):
                rows = slice(start, start + batch)
                yield self._batch(_taken(examples, rows), size, numbers[rows])

    def _scheduled(self, step: int) -> tuple[int, np.ndarray]:
        """Return the segment of a step of a fixed set, and which of its examples are the step's."""
        epoch, place = divmod(step, int(self._batches.sum()))
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._laid_out(epoch))
        return self._epoch[1][place]

    def _laid_out(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """Return the segment and the examples of every batch of an epoch."""
        generator = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch,)))
        laid, first = [], 0
        for segment, (size, num_batches) in enumerate(zip(self.training, self._batches, strict=True)):
            numbers = np.arange(first, first := first + size.examples)
            if self.order == "shuffled":
                generator.shuffle(numbers)
            laid += [(segment, rows) for rows in numbers[: num_batches * self.batch].reshape(-1, self.batch)]
        return [laid[place] for place in generator.permutation(len(laid))] if self.order == "shuffled" else laid

    def _drawn(self, split: str, seed: int, segment: int, size: Any, numbers: Int64[np.ndarray, " n"]) -> Examples:
        """Draw the examples with these numbers: each from the first of its attempts whose row belongs to the split."""
        keys = keyed(SPLITS.index(split), seed, segment, numbers)
        drawn = self.draw(Draws(keys), size, split)
        pending = np.flatnonzero(~_belongs(drawn.inputs, split))
        for _ in range(_ATTEMPTS):
            if not len(pending):
                return drawn
            keys = mixed(keys + np.uint64(1))
            tried = self.draw(Draws(keys[pending]), size, split)
            fits = _belongs(tried.inputs, split)
            _put(drawn, pending[fits], _taken(tried, fits))
            pending = pending[~fits]
        raise ConfigError(f"length={size.length}: with these settings the rule has too few rows to fill {split}")

    def _batch(self, examples: Examples, size: Any, numbers: Int64[np.ndarray, " n"]) -> Batch:
        num_rows, length = examples.inputs.shape
        common = {
            "document": numbers[:, None],
            "position": np.arange(length),
            "relative_position": relative_position(torch.arange(length), self.length).numpy(),
            "length": np.int64(size.length),
        }
        declared = {each.name for each in self.slices}
        facts = {name: fact for name, fact in common.items() if name in declared} | examples.slices
        return Batch(
            torch.from_numpy(examples.inputs.copy()),
            torch.from_numpy(examples.targets.copy()),
            {name: torch.from_numpy(np.broadcast_to(fact, (num_rows, length)).copy()) for name, fact in facts.items()},
        )


def _taken(examples: Examples, rows: Any) -> Examples:
    facts = {name: fact[rows] for name, fact in examples.slices.items()}
    return Examples(examples.inputs[rows], examples.targets[rows], facts)


def _put(examples: Examples, rows: Int64[np.ndarray, " k"], part: Examples) -> None:
    examples.inputs[rows] = part.inputs
    examples.targets[rows] = part.targets
    for name, fact in part.slices.items():
        examples.slices[name][rows] = fact


def _belongs(inputs: Int64[np.ndarray, "n t"], split: str) -> np.ndarray:
    """Say of each row whether it is of the split: a function of its tokens alone."""
    eighth = _digest(inputs) >> np.uint64(61)
    return eighth > 1 if split == "training" else eighth == ("validation", "test").index(split)


def _digest(inputs: Int64[np.ndarray, "n t"]) -> UInt64[np.ndarray, " n"]:
    multipliers = keyed(np.arange(inputs.shape[1], dtype=np.uint64)) | np.uint64(1)
    return mixed((inputs.astype(np.uint64) + np.uint64(1)) @ multipliers)
