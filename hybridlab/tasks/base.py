"""The contract that every task keeps.

Letters in shapes: b batch (rows), t time (tokens of a row).
"""

from collections.abc import Iterator
from typing import Any, ClassVar

from hybridlab.tasks.batch import Batch

SPLITS = ("training", "validation", "test")


class Task:
    """Data and objective: which tokens a stack reads, what it must predict, and what is known of each target.

    Constructors are keyword-only and take `seed` (given by the run) and what every task has: `length` and `batch`. A bad
    value raises `ConfigError("<key>=<value>: <what is allowed>")`; the command line adds the config path.

    A decoder task (`classes` is None) predicts the next token at its supervised positions; an encoder task tells which of
    `classes` a row is of; a task with a `bottleneck` tells the token of each supervised position once the row is read. A
    task computes no metric: it names the measures that say how good a stack is at it, the first being its headline, and
    gives each target the facts (`Batch.slices`) that a measure may be broken down by.
    """

    supervised: ClassVar[str]  # in one sentence: which positions are predicted, and what from
    measures: ClassVar[tuple[str, ...]]  # keys of hybridlab.records.measures.MEASURES, the headline first
    slices: tuple[str, ...]  # keys of hybridlab.records.slices.SLICES; `document` and `position` at least
    source: ClassVar[str]  # where the task was published, or where its data are from
    unit: str  # what a token is: byte | token (of a tokeniser) | symbol

    windowed: bool = False  # long documents are read in windows; else examples are rows of their own
    causal: bool = True  # no position may see what comes after it
    classes: int | None = None  # of an encoder task
    pair: bool = False  # the class is of two documents, 0 and 1 of a row, that are encoded apart and compared
    bottleneck: bool = False  # one vector, that of a row's last position, must tell every target of the row
    vocabulary: int  # ids of inputs, and of targets that are no classes, are below it
    length: int  # tokens of a training row
    batch: int  # rows of a training step
    bytes_of_token: Any = (
        None  # int64 [vocabulary]: how many bytes of text each token stands for, where it stands for text
    )

    @property
    def tokens_per_step(self) -> int:
        """The tokens, padding included, that a training step reads."""
        return self.batch * self.length

    def train_batch(self, step: int) -> Batch:
        """Draw the rows of a training step: a pure function of the task's settings, its seed and `step`."""
        raise NotImplementedError

    def evaluation_batches(
        self, split: str, *, window: int, stride: int, limit: int | None, batch: int
    ) -> Iterator[Batch]:
        """Yield what is scored of a split, the same for every seed, each target once.

        Long documents are read by windows of `window` tokens every `stride`, the first `limit` tokens of each (null: all).
        A task whose examples are rows of their own yields them whole: `limit` is then how many at most. `batch` is the
        number of rows at a time.
        """
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Return facts about the data for the record: sizes, distribution of lengths, digests."""
        return {}

    def baselines(self, split: str, *, window: int, limit: int | None) -> dict[int, float]:
        """Return bits per byte of byte n-gram models, by bytes of context, on what is scored of a split, where it is text."""
        return {}
