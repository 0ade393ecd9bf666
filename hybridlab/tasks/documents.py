"""Language modelling on long documents, byte by byte."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import numpy as np

from hybridlab.errors import ConfigError, near_miss
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.corpus import read_corpus
from hybridlab.tasks.ngram import baselines
from hybridlab.tasks.split import BEGIN, VOCABULARY, Rows, divide, joined
from hybridlab.tasks.windows import windows


class Documents(Task):
    """Predict each byte of a document from those before it.

    `path` is a folder of .txt files (searched recursively), a .jsonl, .jsonl.gz or .jsonl.xz file of objects with a
    "text", or None for the State of the Union addresses that come with the package. Exact duplicates and empty
    documents are dropped, and the rest is split by document. A training step sees `batch` rows of `length` tokens. A row is
    from one document, padded where that is shorter; `packed` rows go on with the next document, which cannot see the last.
    """

    supervised = "every byte of a document, from those before it; the first, from a mark that stands in front of it"
    measures = ("bits_per_byte", "nll", "perplexity")
    slices = ("document", "position")
    source = "files of the user's, or the State of the Union addresses"
    unit = "byte"
    vocabulary = VOCABULARY
    bytes_of_token = (np.arange(VOCABULARY) < BEGIN).astype(np.int64)

    def __init__(
        self,
        *,
        seed: int,
        length: int,
        batch: int,
        path: str | None = None,
        packed: bool = False,
        validation_share: float = 0.1,
        test_share: float = 0.1,
    ):
        _require_whole("seed", seed, least=0)
        _require_whole("length", length, least=1)
        _require_whole("batch", batch, least=1)
        _require_shares(validation_share, test_share)
        self.seed = seed
        self.length = length
        self.batch = batch
        self.packed = packed
        corpus = read_corpus(path)
        if len(corpus.documents) < 3:
            raise ConfigError(f"path={path}: {_too_few(len(corpus.documents))}")
        self.num_duplicates = corpus.num_duplicates
        self.num_empty = corpus.num_empty
        self.splits = divide(corpus.documents, validation_share, test_share)
        lengths = self.splits["training"].num_bytes
        if length > lengths.max():
            longest = f"the longest has {lengths.max()} bytes"
            raise ConfigError(f"length={length}: longer than every training document; {longest}")
        self._ends_of_starts = np.cumsum(np.maximum(lengths - length + 1, 1))

    def train_batch(self, step: int) -> Batch:
        """Draw the rows of a step; a pure function of (seed, step).

        Every start at which a whole row fits is equally likely; a document shorter than a row has one start, its first.
        Packed rows are cut out of shuffled documents laid end to end.
        """
        generator = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(step,)))
        training = self.splits["training"]
        if not self.packed:
            start = generator.integers(self._ends_of_starts[-1], size=self.batch)
            document = np.searchsorted(self._ends_of_starts, start, side="right")
            first = start - np.where(document == 0, 0, self._ends_of_starts[document - 1])
            end = np.minimum(first + self.length, training.num_bytes[document])
            return training.rows(Rows(document, first, first, end), self.length)
        return joined([self._packed_row(generator) for _ in range(self.batch)], training)

    def _packed_row(self, generator: np.random.Generator) -> list[Rows]:
        """Cut a row out of shuffled documents laid end to end, at a byte of one, each byte equally likely."""
        lengths = self.splits["training"].num_bytes
        ends = lengths.cumsum()
        start = generator.integers(ends[-1])
        document = int(np.searchsorted(ends, start, side="right"))
        first, left = int(start - ends[document] + lengths[document]), self.length
        pieces = []
        while left:
            end = min(int(lengths[document]), first + left)
            piece = (np.array([each]) for each in (document, first, first, end))
            pieces.append(Rows(*piece))
            left -= end - first
            document, first = int(generator.integers(len(lengths))), 0
        return pieces

    def evaluation_batches(
        self, split: str, *, window: int, stride: int, limit: int | None, batch: int
    ) -> Iterator[Batch]:
        """Score each of the first `limit` bytes of every document once, in the window that shows most of its past.

        Windows hold at most `window` tokens and begin every `stride`. The slice "document" is the index of the document
        in its split, "position" that of the target byte in its document.
        """
        if split not in self.splits:
            raise ConfigError(f"split={split}: no such split; {near_miss(split, self.splits)}")
        _require_whole("window", window, least=1)
        _require_whole("stride", stride, least=1)
        _require_whole("batch", batch, least=1)
        if limit is not None:
            _require_whole("limit", limit, least=1)
        if stride > window:
            raise ConfigError(f"stride={stride}: must be at most window={window}, or bytes between windows are lost")
        chosen = self.splits[split]
        laid = windows(chosen.prefixes(limit), window, stride, batch)
        return (chosen.rows(rows, int((rows.end - rows.first).max())) for rows in laid)

    def baselines(self, split: str, limit: int | None) -> dict[int, float]:
        """Score byte n-gram models, fitted on the training split, on the bytes that `evaluation_batches` scores."""
        return baselines(self.splits["training"], self.splits[split], limit)

    def describe(self) -> dict[str, Any]:
        """Facts about the corpus for the record; `sha256` is that of the digests of the splits' tokens."""
        digest = sha256()
        for split in self.splits.values():
            digest.update(sha256(split.tokens.tobytes()).digest())
        return {
            "documents": {name: len(split.num_bytes) for name, split in self.splits.items()},
            "bytes": {name: int(split.num_bytes.sum()) for name, split in self.splits.items()},
            "length_quantiles": {name: _quantiles(split.num_bytes) for name, split in self.splits.items()},
            "duplicates_dropped": self.num_duplicates,
            "empty_dropped": self.num_empty,
            "sha256": digest.hexdigest(),
        }


def _quantiles(lengths: np.ndarray) -> dict[str, int]:
    at = {"min": 0.0, "p10": 0.1, "p50": 0.5, "p90": 0.9, "max": 1.0}
    return {name: round(float(np.quantile(lengths, share))) for name, share in at.items()}


def _too_few(num_documents: int) -> str:
    if num_documents == 0:
        return "holds no documents"
    return f"holds {num_documents} distinct document{'s' * (num_documents > 1)}; needs at least 3 documents to split"


def _require_whole(key: str, value: int, least: int) -> None:
    if type(value) is not int or value < least:
        raise ConfigError(f"{key}={value}: must be a whole number of at least {least}")


def _require_shares(validation_share: float, test_share: float) -> None:
    for key, share in (("validation_share", validation_share), ("test_share", test_share)):
        if type(share) is not float or not 0 < share < 1:
            raise ConfigError(f"{key}={share}: must be a number between 0 and 1")
    if validation_share + test_share >= 1:
        raise ConfigError(
            f"test_share={test_share}: with validation_share={validation_share} leaves nothing to train on"
        )
