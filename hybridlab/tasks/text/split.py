"""One split of a corpus: its documents as one flat array of tokens, and the sequences cut from
them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, Integer, UInt8

from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.tasks.text.tokeniser import Tokeniser


class Spans(NamedTuple):
    """Where sequences lie in their documents: targets are the tokens first..end-1, supervised from
    `scored` on.

    `read` is the number of the document's tokens that are read in total, in this sequence and in
    others.
    """

    document: Int64[np.ndarray, " b"]
    first: Int64[np.ndarray, " b"]
    scored: Int64[np.ndarray, " b"]
    end: Int64[np.ndarray, " b"]
    read: Int64[np.ndarray, " b"]


class Split(NamedTuple):
    """The tokens of all documents, one after another, each preceded by `begin`; document i starts
    at `offsets[i]`.

    `facts` are further slices, a number for each of `tokens`, which sequences pass on for their
    targets.
    """

    tokens: Integer[np.ndarray, " tokens"]  # unsigned, usually mapped from a file
    offsets: Int64[np.ndarray, " documents+1"]
    tokeniser: Tokeniser
    facts: Mapping[str, Int64[np.ndarray, " tokens"]] = {}

    @property
    def lengths(self) -> Int64[np.ndarray, " documents"]:
        """The length of each document in tokens, without its `begin`."""
        return np.diff(self.offsets) - 1

    def prefixes(self, limit: int | None) -> Int64[np.ndarray, " documents"]:
        """Return how many tokens of each document are evaluated: the first `limit`, or all."""
        return self.lengths if limit is None else np.minimum(self.lengths, limit)

    def texts(self, lengths: Int64[np.ndarray, " documents"] | None) -> Iterator[UInt8[np.ndarray, " bytes"]]:
        """Yield the bytes of the first `lengths` tokens of each document, or of all its tokens."""
        for start, length in zip(self.offsets, self.lengths if lengths is None else lengths, strict=False):
            yield self.tokeniser.text(self.tokens[start + 1 : start + 1 + length])

    def sequences(self, spans: Spans, length: int) -> Batch:
        """Cut sequences of `length` tokens, padded on the right; target k is predicted from the k +
        1 tokens before it."""
        position = spans.first[:, None] + np.arange(length)
        inside = position < spans.end[:, None]
        index = self.offsets[spans.document][:, None] + np.where(inside, position, 0)
        supervised = inside & (position >= spans.scored[:, None])
        slices = {
            "document": np.repeat(spans.document[:, None], length, axis=1),
            "position": position,
            "length": np.repeat(spans.read[:, None], length, axis=1),
            **{name: values[index + 1] for name, values in self.facts.items()},
        }
        # Converted to signed first: in an unsigned array IGNORED would wrap around to a large
        # token.
        inputs, targets = (self.tokens[where].astype(np.int64) for where in (index, index + 1))
        return Batch(
            torch.from_numpy(np.where(inside, inputs, self.tokeniser.begin)),
            torch.from_numpy(np.where(supervised, targets, IGNORED)),
            {name: torch.from_numpy(values) for name, values in slices.items()},
        )


def pack(sequences: Sequence[Sequence[Spans]], split: Split) -> Batch:
    """Fill each sequence with segments, one after another, each a document of its own; all
    sequences have one length."""

    def cut(number: int, segment: Spans) -> Batch:
        batch = split.sequences(segment, int(segment.end[0] - segment.first[0]))
        return batch._replace(documents=torch.full_like(batch.inputs, number))

    packed = [_concatenate([cut(*numbered) for numbered in enumerate(segments)], dim=1) for segments in sequences]
    return _concatenate(packed, dim=0)


def _concatenate(batches: Sequence[Batch], dim: int) -> Batch:
    inputs, targets, slices, documents = zip(*batches, strict=True)
    facts = {name: torch.cat([each[name] for each in slices], dim) for name in slices[0]}
    return Batch(torch.cat(inputs, dim), torch.cat(targets, dim), facts, torch.cat(documents, dim))
