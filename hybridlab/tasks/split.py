"""One split of a corpus: its documents as one flat array of tokens, and rows cut out of them."""

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt16

from hybridlab.tasks.batch import IGNORED, Batch

BEGIN = 256  # stands in front of every document, so that its first byte is predicted too; itself never a target
VOCABULARY = 257  # the bytes and BEGIN


class Rows(NamedTuple):
    """Where rows lie: the targets are the bytes first..end-1 of a document, supervised from `scored` on."""

    document: Int64[np.ndarray, " b"]
    first: Int64[np.ndarray, " b"]
    scored: Int64[np.ndarray, " b"]
    end: Int64[np.ndarray, " b"]


class Split(NamedTuple):
    """The tokens of all documents, one after another, each from its BEGIN; document i starts at `offsets[i]`."""

    tokens: UInt16[np.ndarray, " tokens"]
    offsets: Int64[np.ndarray, " documents_and_end"]

    @property
    def num_bytes(self) -> Int64[np.ndarray, " documents"]:
        """The length of each document, in bytes."""
        return np.diff(self.offsets) - 1

    def prefixes(self, limit: int | None) -> Int64[np.ndarray, " documents"]:
        """How many bytes of each document are evaluated: the first `limit`, or all of them."""
        return self.num_bytes if limit is None else np.minimum(self.num_bytes, limit)

    def rows(self, rows: Rows, length: int) -> Batch:
        """Cut rows of `length` tokens, padded at the right; byte k is predicted from the k + 1 tokens before it."""
        position = rows.first[:, None] + np.arange(length)
        inside = position < rows.end[:, None]
        index = self.offsets[rows.document][:, None] + np.where(inside, position, 0)
        supervised = inside & (position >= rows.scored[:, None])
        document = np.repeat(rows.document[:, None], length, axis=1)
        return Batch(
            torch.from_numpy(np.where(inside, self.tokens[index].astype(np.int64), BEGIN)),
            # Signed before IGNORED is put in: uint16 would wrap it round to a large token.
            torch.from_numpy(np.where(supervised, self.tokens[index + 1].astype(np.int64), IGNORED)),
            {"document": torch.from_numpy(document), "position": torch.from_numpy(position)},
        )


def joined(rows: Sequence[Sequence[Rows]], split: Split) -> Batch:
    """Fill each row with several pieces, one after another, each a document of its own; the rows are of one length."""

    def cut(number: int, piece: Rows) -> Batch:
        batch = split.rows(piece, int(piece.end[0] - piece.first[0]))
        return batch._replace(documents=torch.full_like(batch.inputs, number))

    filled = [_concatenated([cut(*numbered) for numbered in enumerate(pieces)], dim=1) for pieces in rows]
    return _concatenated(filled, dim=0)


def _concatenated(batches: Sequence[Batch], dim: int) -> Batch:
    inputs, targets, slices, documents = zip(*batches, strict=True)
    each = {key: torch.cat([facts[key] for facts in slices], dim) for key in slices[0]}
    return Batch(torch.cat(inputs, dim), torch.cat(targets, dim), each, torch.cat(documents, dim))


def divide(documents: Sequence[bytes], validation_share: float, test_share: float) -> dict[str, Split]:
    """Divide distinct documents, at least three, by the order of their SHA-256: test first, then validation.

    The order depends on nothing but the texts, so neither file names nor seeds move a document to another split.
    """
    num_test = min(max(round(test_share * len(documents)), 1), len(documents) - 2)
    num_validation = min(max(round(validation_share * len(documents)), 1), len(documents) - num_test - 1)
    ordered = sorted(documents, key=lambda text: sha256(text).digest())
    return {
        "training": _split(ordered[num_test + num_validation :]),
        "validation": _split(ordered[num_test : num_test + num_validation]),
        "test": _split(ordered[:num_test]),
    }


def _split(documents: Sequence[bytes]) -> Split:
    offsets = np.cumsum([0, *(len(text) + 1 for text in documents)], dtype=np.int64)
    tokens = np.full(offsets[-1], BEGIN, dtype=np.uint16)
    for start, text in zip(offsets, documents, strict=False):
        tokens[start + 1 : start + 1 + len(text)] = np.frombuffer(text, dtype=np.uint8)
    return Split(tokens, offsets)
