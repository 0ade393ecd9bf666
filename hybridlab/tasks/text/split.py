"""One split of a corpus: its documents as one flat array of tokens, and the sequences cut from
them."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64, Integer, UInt8

from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.tasks.text.scored_text import end_of_prefix
from hybridlab.tasks.text.tokeniser import Bytes, Tokeniser


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

    `added` marks the documents whose first token begins with a space that the tokeniser added: it
    is no byte of the text. `facts` are further slices, a number for each of `tokens`, which
    sequences pass on for their targets.
    """

    tokens: Integer[np.ndarray, " tokens"]  # unsigned, usually mapped from a file
    offsets: Int64[np.ndarray, " documents+1"]
    tokeniser: Tokeniser
    added: Bool[np.ndarray, " documents"]
    facts: Mapping[str, Int64[np.ndarray, " tokens"]] = {}

    @property
    def lengths(self) -> Int64[np.ndarray, " documents"]:
        """The length of each document in tokens, without its `begin`."""
        return np.diff(self.offsets) - 1

    def prefixes(self, limit: int | None) -> "Prefixes":
        """Return the tokens of the first `limit` bytes of each document (see `end_of_prefix`).

        The text is cut, not its tokens: a token that crosses the limit stands for bytes on both
        sides. So a document that is longer is tokenised again up to the cut, and every tokeniser
        reads the same bytes. The facts of a split that is tokenised again are left out.
        """
        if limit is None or isinstance(self.tokeniser, Bytes):
            texts = (self.tokens[start + 1 : end] for start, end in pairwise(self.offsets))
            ends = self.lengths if limit is None else np.array([end_of_prefix(text, limit) for text in texts])
            return Prefixes(self, ends)
        # Each token stands for a byte at least; a character has four at most, and a space was
        # added.
        started = self.texts(np.minimum(self.lengths, limit + 5))
        documents = []
        for text, start, end in zip(started, self.offsets, self.offsets[1:], strict=False):
            cut = end_of_prefix(text, limit)
            whole = cut == len(text)  # then no token was left out either
            documents.append(self.tokens[start + 1 : end] if whole else self.tokeniser.tokens(text[:cut].tobytes()))
        begin = np.array([self.tokeniser.begin], self.tokens.dtype)
        tokens = [part.astype(begin.dtype) for document in documents for part in (begin, document)]
        offsets = np.cumsum([0, *(1 + len(document) for document in documents)])
        split = Split(np.concatenate(tokens), offsets, self.tokeniser, self.added)
        return Prefixes(split, split.lengths)

    def texts(self, lengths: Int64[np.ndarray, " documents"] | None) -> Iterator[UInt8[np.ndarray, " bytes"]]:
        """Yield the bytes of the first `lengths` tokens of each document, or of all its tokens."""
        lengths = self.lengths if lengths is None else lengths
        for start, length, added in zip(self.offsets, lengths, self.added, strict=False):
            yield self.tokeniser.text(self.tokens[start + 1 : start + 1 + length])[int(added) :]

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
            num_bytes=self._num_bytes(targets, spans, position),
        )

    def _num_bytes(self, targets: np.ndarray, spans: Spans, position: np.ndarray) -> torch.Tensor | None:
        """Return the bytes of text of each target, where they are not those of its token."""
        if not self.added.any():
            return None
        added = self.added[spans.document][:, None] & (position == 0)
        return torch.from_numpy(self.tokeniser.bytes_of_token[targets] - added)


class Prefixes(NamedTuple):
    """The tokens of the starts of documents: a split, and how many of each document's are read."""

    split: Split
    lengths: Int64[np.ndarray, " documents"]


def pack(sequences: Sequence[Sequence[Spans]], split: Split) -> Batch:
    """Fill each sequence with segments, one after another, each a document of its own; all
    sequences have one length."""

    def cut(number: int, segment: Spans) -> Batch:
        batch = split.sequences(segment, int(segment.end[0] - segment.first[0]))
        return batch._replace(documents=torch.full_like(batch.inputs, number))

    packed = [_concatenate([cut(*numbered) for numbered in enumerate(segments)], dim=1) for segments in sequences]
    return _concatenate(packed, dim=0)


def _concatenate(batches: Sequence[Batch], dim: int) -> Batch:
    inputs, targets, slices, documents, num_bytes = zip(*batches, strict=True)
    facts = {name: torch.cat([each[name] for each in slices], dim) for name in slices[0]}
    joined = None if num_bytes[0] is None else torch.cat(num_bytes, dim)
    return Batch(torch.cat(inputs, dim), torch.cat(targets, dim), facts, torch.cat(documents, dim), joined)
