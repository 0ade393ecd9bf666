"""Language modelling on long documents."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int64

from hybridlab import validate
from hybridlab.errors import ConfigError
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.check import check_evaluation
from hybridlab.tasks.relative_position import relative_position
from hybridlab.tasks.slices import DOCUMENT, LENGTH, POSITION, RECALL, RECALL_DISTANCE, RELATIVE_POSITION
from hybridlab.tasks.text.corpus import Division, open_corpus
from hybridlab.tasks.text.files import Files
from hybridlab.tasks.text.hub import Hub
from hybridlab.tasks.text.ngram import baselines
from hybridlab.tasks.text.recall import Recalled, Rule
from hybridlab.tasks.text.training_sequences import TrainingSequences, check_distribution
from hybridlab.tasks.text.windows import starts, windows


class Documents(Task):
    """Predict each token of a document from those before it.

    The documents come from the files of `path` (see `Files`), from a dataset of the Hugging Face
    hub (see `Hub`), or from the package, which includes the State of the Union addresses. Exact
    duplicates and empty documents are dropped, the rest is split by document, and `near_duplicates`
    sets how near duplicates across splits are handled (see `Division`). `tokeniser` is `bytes`,
    `{bpe: n}`, trained on the training split, or the path of a tokenizer.json. The tokens are
    cached on disk (see `stored`). A sequence is cut from one document and padded if that is
    shorter; with `packed`, the next document follows, which cannot see the one before.
    `length_distribution` sets how long sequences are, in training (see `TrainingSequences`) and in
    evaluation. With `recall` ({n, at_most}, see `Rule`), held-out tokens that can be recalled are
    marked.
    """

    windowed = True
    predicts = "every token of a document, from those before it; the first, from a begin token"
    measures = ("bits_per_byte", "nll", "perplexity")
    slices = (DOCUMENT, POSITION, RELATIVE_POSITION, LENGTH)
    source = "the user's files, a dataset of the Hugging Face hub, or the State of the Union addresses"

    def __init__(
        self,
        *,
        seed: int,
        length: int,
        batch: int,
        path: str | None = None,
        hub: dict[str, Any] | None = None,
        field: str = "text",
        encoding: str = "utf-8",
        tokeniser: str | dict[str, int] = "bytes",
        near_duplicates: str = "drop",
        validation_share: float = 0.1,
        test_share: float = 0.1,
        length_distribution: str = "fixed",
        packed: bool = False,
        recall: dict[str, int] | None = None,
    ):
        validate.whole(least=0, seed=seed)
        validate.whole(length=length, batch=batch)
        check_distribution(length_distribution, packed)
        if path is not None and hub is not None:
            raise ConfigError(f"path={path}: with hub.name={hub.get('name')} there are two sources; one is needed")
        source = Files(path, field, encoding) if hub is None else Hub.of(hub, field)
        corpus = open_corpus(source, tokeniser, Division(validation_share, test_share, near_duplicates))
        self.seed = seed
        self.length = length
        self.batch = batch
        self.length_distribution = length_distribution
        self.splits = corpus.splits
        if recall is not None:
            self.splits = Recalled(corpus.splits, Rule.of(recall))
            self.slices = (*type(self).slices, RECALL, RECALL_DISTANCE)
        self.facts = corpus.facts
        self.unit = corpus.tokeniser.unit
        self.bytes_of_token = corpus.tokeniser.bytes_of_token
        self.vocabulary = len(self.bytes_of_token)
        self._training = TrainingSequences(
            self.splits["training"], length=length, batch=batch, distribution=length_distribution, packed=packed
        )

    def train_batch(self, step: int) -> Batch:
        """Draw the batch of a step: a pure function of (seed, step)."""
        generator = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(step,)))
        return self._with_relative_position(self._training.draw(generator))

    def evaluation_batches(
        self, split: str, *, window: int, stride: int, limit: int | None, batch: int
    ) -> Iterator[Batch]:
        """Yield the first `limit` tokens of every document, each supervised at most once.

        With `fixed` lengths, windows of at most `window` tokens every `stride` cover them, and each
        token is supervised in the window that shows most of its past. With `corpus` lengths, each
        document is one sequence from its start, of at most `window` tokens. With `uniform` lengths,
        that sequence is truncated to a number of tokens drawn uniformly, the same for every seed.
        """
        check_evaluation(split, limit, batch)
        validate.whole(window=window, stride=stride)
        if stride > window:
            unit = f"{self.unit}s"
            raise ConfigError(f"stride={stride}: must be at most window={window}, or {unit} between windows are lost")
        chosen = self.splits[split]
        lengths = self._read(split, window, limit)
        batches = (
            windows(lengths, window, stride, batch) if self.length_distribution == "fixed" else starts(lengths, batch)
        )
        return (
            self._with_relative_position(chosen.sequences(spans, int((spans.end - spans.first).max())))
            for spans in batches
        )

    def baselines(self, split: str, *, window: int, limit: int | None) -> dict[int, float]:
        """Return the bits per byte of byte n-gram models, fitted on the training split, on the
        evaluated tokens."""
        scored = self.splits[split].texts(self._read(split, window, limit))
        return baselines(self.splits["training"].texts(None), scored)

    def _read(self, split: str, window: int, limit: int | None) -> Int64[np.ndarray, " documents"]:
        """Return how many tokens of each document are evaluated."""
        lengths = self.splits[split].prefixes(limit)
        if self.length_distribution == "fixed":
            return lengths
        lengths = np.minimum(lengths, window)
        if self.length_distribution == "uniform":
            return np.random.default_rng(0).integers(1, lengths, endpoint=True)
        return lengths

    def describe(self) -> dict[str, Any]:
        """Return facts about the corpus for the record; `sha256` hashes the digests of the splits'
        tokens."""
        return self.facts

    def _with_relative_position(self, batch: Batch) -> Batch:
        fact = relative_position(batch.slices["position"], self.length)
        return batch._replace(slices={**batch.slices, "relative_position": fact})
