"""Language modelling on long documents."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int64

from hybridlab.errors import ConfigError
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.relative_position import relative_position
from hybridlab.tasks.settings import check_evaluation, require_whole
from hybridlab.tasks.slices import DOCUMENT, LENGTH, POSITION, RECALL, RECALL_DISTANCE, RELATIVE_POSITION
from hybridlab.tasks.text.corpus import Division, open_corpus
from hybridlab.tasks.text.files import Files
from hybridlab.tasks.text.hub import Hub
from hybridlab.tasks.text.ngram import baselines
from hybridlab.tasks.text.recall import Recalled, Rule
from hybridlab.tasks.text.training_rows import TrainingRows, check_distribution
from hybridlab.tasks.text.windows import starts, windows


class Documents(Task):
    """Predict each token of a document from those before it.

    The documents are in the files of `path` (see `Files`), in a dataset of the Hugging Face hub (see `Hub`), or the State
    of the Union addresses that come with the package. Exact duplicates and empty documents are dropped, the rest is split
    by document, and near duplicates across splits are treated as told (see `Division`). `tokeniser` is `bytes`,
    `{bpe: n}`, trained on the training split, or the path of a tokenizer.json. Everything is stored tokenised (see
    `stored`). A row is from one document, padded where that is shorter; `packed` rows go on with the next document,
    which cannot see the last. `length_distribution` says how long rows are, in training (see `TrainingRows`) and in
    evaluation. `recall` ({n, at_most}, see `Rule`) tells which tokens of held-out documents can be recalled; null does not.
    """

    windowed = True
    predicts = "every token of a document, from those before it; the first, from a mark that stands in front of it"
    measures = ("bits_per_byte", "nll", "perplexity")
    slices = (DOCUMENT, POSITION, RELATIVE_POSITION, LENGTH)
    source = "files of the user's, a dataset of the Hugging Face hub, or the State of the Union addresses"

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
        require_whole("seed", seed, least=0)
        require_whole("length", length, least=1)
        require_whole("batch", batch, least=1)
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
        self._rows = TrainingRows(
            self.splits["training"], length=length, batch=batch, distribution=length_distribution, packed=packed
        )

    def train_batch(self, step: int) -> Batch:
        """Draw the rows of a step; a pure function of (seed, step)."""
        generator = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(step,)))
        return self._placed(self._rows.draw(generator))

    def evaluation_batches(
        self, split: str, *, window: int, stride: int, limit: int | None, batch: int
    ) -> Iterator[Batch]:
        """Score the first `limit` tokens of every document, each at most once.

        With rows of `fixed` length, all of them are: in windows of at most `window` tokens every `stride`, each in the
        window that shows most of its past. With the `corpus`'s lengths, a document is one row from its start, of its own
        length up to `window`; with `uniform` ones, a row ends after a number of its tokens of which all are equally
        likely, the same for every seed.
        """
        check_evaluation(split, limit, batch)
        require_whole("window", window, least=1)
        require_whole("stride", stride, least=1)
        if stride > window:
            unit = f"{self.unit}s"
            raise ConfigError(f"stride={stride}: must be at most window={window}, or {unit} between windows are lost")
        chosen = self.splits[split]
        lengths = self._read(split, window, limit)
        laid = (
            windows(lengths, window, stride, batch) if self.length_distribution == "fixed" else starts(lengths, batch)
        )
        return (self._placed(chosen.rows(rows, int((rows.end - rows.first).max()))) for rows in laid)

    def baselines(self, split: str, *, window: int, limit: int | None) -> dict[int, float]:
        """Score byte n-gram models, fitted on the training split, on the bytes of the tokens that are evaluated."""
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
        """Facts about the corpus for the record; `sha256` is that of the digests of the splits' tokens."""
        return self.facts

    def _placed(self, batch: Batch) -> Batch:
        place = relative_position(batch.slices["position"], self.length)
        return batch._replace(slices={**batch.slices, "relative_position": place})
