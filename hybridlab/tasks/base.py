"""The contract that every task keeps."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from hybridlab.stack.readout import Readout
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.scored import Scored, scored_of
from hybridlab.tasks.slices import Slice

SPLITS = ("training", "validation", "test")
VALIDATION_LIMIT = 1024  # bytes of each document, or examples
VALIDATION_BATCH = 8


class Task:
    """The data and the objective: the tokens that a stack reads, its targets, and what is known of
    each target.

    Constructors are keyword-only and take `seed`, which the run sets, `length` and `batch`. A bad
    value raises `ConfigError("<key>=<value>: <what is allowed>")`; `hybridlab.build` adds the
    configuration path.

    A task that reads files, whose settings are paths, declares them in `content_settings` and
    returns a digest of what it read as `content`. Without these, what the settings do
    not name as a path is not seen: a run on data that changed is then taken for the one before.

    `readout` sets what the targets are predicted from. With `EVERY_POSITION` and `LAST_POSITION`
    they are tokens, and those that are not `IGNORED` are supervised; with `SEQUENCE_MEAN` and
    `PAIR_OF_MEANS` each sequence has one of `classes`. A task computes no measure. It names those
    that show how well a stack does, and it gives facts about each target (`Batch.slices`) to break
    the measures down by.
    """

    predicts: ClassVar[str]  # one sentence: which positions are predicted, and from what
    measures: ClassVar[tuple[str, ...]]  # names of measures, the headline first
    slices: tuple[Slice, ...]  # those of every batch; DOCUMENT and POSITION at least
    source: ClassVar[str]  # where the task was published, or where its data come from
    version: ClassVar[int] = 1  # raised whenever the same settings draw other examples: runs of the old are others
    # Settings whose content decides the data, not their value: paths of files, names of datasets.
    content_settings: tuple[str, ...] = ()
    unit: str  # what a token is: byte | token (of a tokeniser) | symbol

    windowed: bool = False  # True: long documents are read in windows; False: each example is one sequence
    causal: bool = True  # no position may see what comes after it
    readout: Readout = Readout.EVERY_POSITION
    classes: int | None = None  # how many, where a sequence has one; None: targets are tokens
    vocabulary: int  # ids of inputs, and of targets that are tokens, are below it
    length: int  # tokens of a training sequence
    batch: int  # sequences of a training step
    bytes_of_token: Any = None  # int64 [vocabulary]: how many bytes of text each token stands for; None: no text

    @property
    def tokens_per_step(self) -> int:
        """The number of tokens that a training step reads, padding included."""
        return self.batch * self.length

    @property
    def training_tokens(self) -> int | None:
        """The tokens of the training split; None where examples are drawn anew without end."""
        return None

    def train_batch(self, step: int) -> Batch:
        """Draw the batch of a training step: a pure function of the task's settings, its seed and
        `step`."""
        raise NotImplementedError

    def evaluation_batches(
        self, split: str, *, window: int, stride: int, limit: int | None, batch: int
    ) -> Iterator[Batch]:
        """Yield the batches that a split is scored on, the same for every seed, with each target
        supervised once.

        Of long documents the first `limit` bytes of text (None: all; symbols, where there is no
        text) are read in windows of `window` tokens every `stride`, so that what is scored does not
        depend on the tokeniser. A task whose examples are single sequences yields at most `limit`
        of them, whole. `batch` is the number of sequences of a batch.
        """
        raise NotImplementedError

    def scored(self, split: str, *, window: int, stride: int, limit: int | None) -> str:
        """Return a digest of what a split is scored on; two runs are compared only where it is the
        same.

        For documents it is the digest of their text, whatever the tokeniser makes of it; for other
        tasks, of the inputs and targets of all examples. It is computed once by a task.
        """
        return self._scored(split, window, stride, limit).sha256

    def scored_bytes(self, split: str, *, window: int, stride: int, limit: int | None) -> int | None:
        """Return how many bytes of text a split is scored on; None without text."""
        return self._scored(split, window, stride, limit).num_bytes

    def validation_batches(self) -> Iterator[Batch]:
        """Yield the batches of the validation split that a run's validation loss is computed on.

        Windows are as long as training sequences and do not overlap; `VALIDATION_LIMIT` bytes of
        each document, or examples, are read.
        """
        return self.evaluation_batches(
            "validation", window=self.length, stride=self.length, limit=VALIDATION_LIMIT, batch=VALIDATION_BATCH
        )

    def content(self) -> str:
        """Return a digest of the data that `content_settings` name; "" if settings decide all.

        The digest takes the place of these settings in what identifies a run. So the same data
        elsewhere are the same run, and changed data are another. It must be that of the data that
        the task reads, whatever happens to their files later, and it is asked for often.
        """
        return ""

    @property
    def floors(self) -> Mapping[str, float]:
        """What a guess reaches on the test split, by the name of the measure; {} if it is not
        known.

        A guess knows how often each answer occurs, in the example where that shows its answers, but
        not which one belongs where. A stack that is no better has learnt no recall, no order, no
        rule. A class of the user's may state numbers: `floors = {"accuracy": 0.1}`.
        """
        return {}

    def describe(self) -> dict[str, Any]:
        """Return facts about the data for the record: sizes, distribution of lengths, digests, and
        `floors`. A subclass adds to them."""
        return {"floors": dict(self.floors)} if self.floors else {}

    def baselines(self, split: str, *, window: int, limit: int | None) -> dict[int, float]:
        """Return the bits per byte of byte n-gram models on the scored text of a split, by bytes of
        context; {} without text."""
        return {}

    def _scored(self, split: str, window: int, stride: int, limit: int | None) -> Scored:
        known = vars(self).setdefault("_scored_before", {})  # a user's class need not call ours
        key = split, window, stride, limit
        if key not in known:
            # Always of one size: padding depends on it.
            batches = self.evaluation_batches(split, window=window, stride=stride, limit=limit, batch=VALIDATION_BATCH)
            known[key] = scored_of(batches, self.bytes_of_token)
        return known[key]
