"""Sequences that hold several documents, none of which may see another.

Letters in shapes: b batch (sequences), t time (tokens), d width of the stack, n documents of a
call.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Documents whose lengths differ by less than this factor share a call, padded to the longest: at
# most half is padding.
RATIO = 2

# A row per document: the indices of its tokens in the flattened batch, and which of them are not
# padding.
Call = tuple[Int[Tensor, "n t"], Bool[Tensor, "n t"]]


def packing_of(documents: Int[Tensor, "b t"] | None) -> "Packing | None":
    """Return how a batch is packed, or None if each of its sequences is one document."""
    return None if documents is None else Packing.of(documents)


@dataclass(frozen=True)
class Packing:
    """The documents of a packed batch, longest first.

    `spans` holds the first token and the length of each, in the flattened batch.
    """

    spans: tuple[tuple[int, int], ...]
    device: torch.device

    @classmethod
    def of(cls, documents: Int[Tensor, "b t"]) -> "Packing":
        """Find the documents from the number of each token's document.

        A number below 0 marks padding.

        A document is a run of equal numbers within one sequence.
        """
        sequences = torch.arange(len(documents), device=documents.device)[:, None].expand_as(documents)
        numbered = torch.stack([sequences, documents], dim=-1).flatten(0, 1)
        runs, lengths = torch.unique_consecutive(numbered, dim=0, return_counts=True)
        firsts = lengths.cumsum(0) - lengths
        real = runs[:, 1] >= 0
        spans = zip(firsts[real].tolist(), lengths[real].tolist(), strict=True)
        return cls(tuple(sorted(spans, key=lambda span: -span[1])), documents.device)

    def mix(self, mixer: Any, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix each document as a sequence of its own and write the result back into the batch.

        Padding gets zeros.

        The mixer needs no support for packing: positions, states, masks and convolutions start with
        the document. Documents of similar length share a call. A causal mixer never sees the
        padding after a document. A bidirectional one would, so its calls hold documents of one
        length.
        """
        flat = x.flatten(0, 1)
        mixed = torch.zeros_like(flat)
        for indices, real in self._similar_calls if mixer.causal else self._equal_calls:
            y = mixer(flat[indices])
            mixed = mixed.to(y.dtype).index_put((indices[real],), y[real])
        return mixed.view_as(x)

    @cached_property
    def _similar_calls(self) -> list[Call]:
        return self._calls(equal=False)

    @cached_property
    def _equal_calls(self) -> list[Call]:
        return self._calls(equal=True)

    def _calls(self, equal: bool) -> list[Call]:
        """Sort the documents into calls: of one length if `equal`, else of lengths within RATIO."""
        calls: list[list[tuple[int, int]]] = []
        for span in self.spans:
            longest = calls[-1][0][1] if calls else 0
            if span[1] != longest if equal else span[1] * RATIO <= longest or not calls:
                calls.append([])
            calls[-1].append(span)
        return [self._call(spans) for spans in calls]

    def _call(self, spans: list[tuple[int, int]]) -> Call:
        first, length = torch.tensor(spans, device=self.device).T[..., None]
        offset = torch.arange(spans[0][1], device=self.device)
        return first + torch.minimum(offset, length - 1), offset < length
