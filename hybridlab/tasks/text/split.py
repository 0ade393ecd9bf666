"""One split of a corpus: its documents as one flat array of tokens, and rows cut out of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.tasks.text.tokeniser import Tokeniser


class Rows(NamedTuple):
    """Where rows lie: the targets are the tokens first..end-1 of a document, supervised from `scored` on.

    `read` is how many tokens of the document are read in all, in this row and in others.
    """

    document: Int64[np.ndarray, " b"]
    first: Int64[np.ndarray, " b"]
    scored: Int64[np.ndarray, " b"]
    end: Int64[np.ndarray, " b"]
    read: Int64[np.ndarray, " b"]


class Split(NamedTuple):
    """The tokens of all documents, one after another, each from its `begin`; document i starts at `offsets[i]`.

    `facts` are more slices, a number for each of `tokens`, which rows hand on for their targets.
    """

    tokens: np.ndarray  # unsigned [tokens], usually mapped from a file
    offsets: Int64[np.ndarray, " documents_and_end"]
    tokeniser: Tokeniser
    facts: Mapping[str, Int64[np.ndarray, " tokens"]] = {}

    @property
    def lengths(self) -> Int64[np.ndarray, " documents"]:
        """The length of each document in tokens, its `begin` aside."""
        return np.diff(self.offsets) - 1

    def prefixes(self, limit: int | None) -> Int64[np.ndarray, " documents"]:
        """How many tokens of each document are evaluated: the first `limit`, or all of them."""
        return self.lengths if limit is None else np.minimum(self.lengths, limit)

    def texts(self, lengths: Int64[np.ndarray, " documents"] | None) -> Iterator[UInt8[np.ndarray, " bytes"]]:
        """Yield the bytes that the first `lengths` tokens of each document, or all of them, stand for."""
        for start, length in zip(self.offsets, self.lengths if lengths is None else lengths, strict=False):
            yield self.tokeniser.text(self.tokens[start + 1 : start + 1 + length])

    def rows(self, rows: Rows, length: int) -> Batch:
        """Cut rows of `length` tokens, padded at the right; token k is predicted from the k + 1 tokens before it."""
        position = rows.first[:, None] + np.arange(length)
        inside = position < rows.end[:, None]
        index = self.offsets[rows.document][:, None] + np.where(inside, position, 0)
        supervised = inside & (position >= rows.scored[:, None])
        slices = {
            "document": np.repeat(rows.document[:, None], length, axis=1),
            "position": position,
            "length": np.repeat(rows.read[:, None], length, axis=1),
            **{name: values[index + 1] for name, values in self.facts.items()},
        }
        # Signed before IGNORED is put in: an unsigned number would wrap it round to a large token.
        inputs, targets = (self.tokens[where].astype(np.int64) for where in (index, index + 1))
        return Batch(
            torch.from_numpy(np.where(inside, inputs, self.tokeniser.begin)),
            torch.from_numpy(np.where(supervised, targets, IGNORED)),
            {name: torch.from_numpy(values) for name, values in slices.items()},
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
