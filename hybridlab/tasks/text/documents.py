"""Language modelling on long documents."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from hybridlab import validate
from hybridlab.errors import ConfigError
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.cache import computed_once, digest_of
from hybridlab.tasks.check import check_evaluation
from hybridlab.tasks.relative_position import relative_position
from hybridlab.tasks.slices import DOCUMENT, LENGTH, POSITION, RECALL, RECALL_DISTANCE, RELATIVE_POSITION
from hybridlab.tasks.text import ngram
from hybridlab.tasks.text.corpus import Division, open_corpus
from hybridlab.tasks.text.files import Files
from hybridlab.tasks.text.hub import Hub
from hybridlab.tasks.text.recall import Recalled, Rule
from hybridlab.tasks.text.scored_text import TextDigest, digest_texts
from hybridlab.tasks.text.split import Prefixes, Split
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

    content_settings = ("path", "hub")
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
        if tokeniser != "bytes" and not isinstance(tokeniser, Mapping):
            self.content_settings = (*type(self).content_settings, "tokeniser")  # a file, whose bytes decide
        self.seed = seed
        self.length = length
        self.batch = batch
        self.length_distribution = length_distribution
        self._unmarked = corpus.splits
        self.splits: Mapping[str, Split] = corpus.splits
        self._recalled = None if recall is None else Recalled(corpus.splits, Rule.of(recall))
        if self._recalled is not None:
            self.splits = self._recalled
            self.slices = (*type(self).slices, RECALL, RECALL_DISTANCE)
        self.facts = {**corpus.facts, **source.facts}
        self._prefixes: dict[tuple[str, int | None], Prefixes] = {}
        self._marked: dict[tuple[str, int | None], Split] = {}
        self._texts: dict[tuple[str, int | None, int | None], TextDigest] = {}
        self.unit = corpus.tokeniser.unit
        self.bytes_of_token = corpus.tokeniser.bytes_of_token
        self.vocabulary = len(self.bytes_of_token)
        self._training = TrainingSequences(
            self.splits["training"], length=length, batch=batch, distribution=length_distribution, packed=packed
        )

    @property
    def training_tokens(self) -> int:
        """The tokens of the training split."""
        return int(self._training.training.lengths.sum())

    def train_batch(self, step: int) -> Batch:
        """Draw the batch of a step: a pure function of (seed, step)."""
        generator = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(step,)))
        return self._with_relative_position(self._training.draw(generator))

    def evaluation_batches(
        self, split: str, *, window: int, stride: int, limit: int | None, batch: int
    ) -> Iterator[Batch]:
        """Yield the tokens of the first `limit` bytes of every document, each supervised once.

        `limit` counts bytes of text, whole characters, so that all tokenisers score the same text
        (see `Split.prefixes`); windows count tokens. With `fixed` lengths, windows of at most
        `window` tokens every `stride` cover them, and each token is supervised in the window that
        shows most of its past. With `corpus` lengths, each document is one sequence from its start,
        of at most `window` tokens. With `uniform` lengths, that sequence is truncated to a number
        of tokens drawn uniformly, the same for every seed.
        """
        check_evaluation(split, limit, batch)
        validate.whole(window=window, stride=stride)
        if stride > window:
            unit = f"{self.unit}s"
            raise ConfigError(f"stride={stride}: must be at most window={window}, or {unit} between windows are lost")
        chosen, lengths = self._read(split, window, limit)
        batches = (
            windows(lengths, window, stride, batch) if self.length_distribution == "fixed" else starts(lengths, batch)
        )
        return (
            self._with_relative_position(chosen.sequences(spans, int((spans.end - spans.first).max())))
            for spans in batches
        )

    def scored(self, split: str, *, window: int, stride: int, limit: int | None) -> str:
        """Return the digest of the text that is scored, document by document, whatever its tokens
        are."""
        return self._text(split, window, limit).sha256

    def scored_bytes(self, split: str, *, window: int, stride: int, limit: int | None) -> int:
        """Return the number of bytes of the text that is scored."""
        return self._text(split, window, limit).num_bytes

    def baselines(self, split: str, *, window: int, limit: int | None) -> dict[int, float]:
        """Return the bits per byte of byte n-gram models, fitted on the training split, on the
        scored text.

        They depend on the two texts alone, and are computed once for them (see `computed_once`).
        """
        key = digest_of(ngram.VERSION, self.facts["text"]["training"], self._text(split, window, limit).sha256)

        def compute() -> dict[str, float]:
            found = ngram.baselines(self.splits["training"].texts(None), self._scored_texts(split, window, limit))
            return {str(context): bits for context, bits in found.items()}

        return {int(context): bits for context, bits in computed_once("ngrams", key, compute).items()}

    def content(self) -> str:
        """Return the digest of the tokens of all splits and of what made them.

        The corpus is a copy (see `open_corpus`), so it does not change while the task is used.
        """
        return digest_of(self.facts["sha256"], self.facts["tokeniser"]["identity"])

    def describe(self) -> dict[str, Any]:
        """Return facts about the corpus for the record; `sha256` hashes the digests of the splits'
        tokens, `text` has a digest of each split's documents."""
        return {**super().describe(), **self.facts}

    def _read(self, split: str, window: int, limit: int | None) -> Prefixes:
        """Return which tokens of each document are evaluated, with their facts."""
        found = self._starts(split, window, limit)
        if self._recalled is None:
            return found
        key = (split, limit)
        if key not in self._marked:
            whole = found.split is self._unmarked[split]
            self._marked[key] = self._recalled[split] if whole else self._recalled.mark(found.split)
        return found._replace(split=self._marked[key])

    def _starts(self, split: str, window: int, limit: int | None) -> Prefixes:
        """Return which tokens of each document are evaluated."""
        if (split, limit) not in self._prefixes:
            self._prefixes[split, limit] = self._unmarked[split].prefixes(limit)
        found = self._prefixes[split, limit]
        if self.length_distribution == "fixed":
            return found
        lengths = np.minimum(found.lengths, window)
        if self.length_distribution == "uniform":
            lengths = np.random.default_rng(0).integers(1, lengths, endpoint=True)
        return found._replace(lengths=lengths)

    def _text(self, split: str, window: int, limit: int | None) -> TextDigest:
        """Return the digest of the scored text, which windows cover whatever their size."""
        windowed = self.length_distribution == "fixed"
        if windowed and limit is None:
            return TextDigest(self.facts["text"][split], self.facts["bytes"][split])
        key = (split, None if windowed else window, limit)
        if key not in self._texts:
            self._texts[key] = digest_texts(self._scored_texts(split, window, limit))
        return self._texts[key]

    def _scored_texts(self, split: str, window: int, limit: int | None) -> Iterator[UInt8[np.ndarray, " bytes"]]:
        chosen, lengths = self._starts(split, window, limit)
        return chosen.texts(lengths)

    def _with_relative_position(self, batch: Batch) -> Batch:
        fact = relative_position(batch.slices["position"], self.length)
        return batch._replace(slices={**batch.slices, "relative_position": fact})
