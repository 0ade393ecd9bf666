"""Rows that hold several documents, of which none may see another."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Documents whose lengths differ by less than this share a call, padded to the longest: at most half of it is padding.
RATIO = 2

# A row per document: where each of its tokens stands in the flattened rows, and which of them are not padding.
Call = tuple[Int[Tensor, "n t"], Bool[Tensor, "n t"]]


def packing_of(documents: Int[Tensor, "b t"] | None) -> "Packing | None":
    """Return how rows are packed; None where each is one document and mixed as it is."""
    return None if documents is None else Packing.of(documents)


@dataclass(frozen=True)
class Packing:
    """Where the documents of packed rows lie: one (first, length) per document, in the flattened rows, longest first."""

    spans: tuple[tuple[int, int], ...]
    device: torch.device

    @classmethod
    def of(cls, documents: Int[Tensor, "b t"]) -> "Packing":
        """Read the spans off the number of each token's document; tokens numbered below 0 are padding, of no document.

        A document is a run of equal numbers within one row.
        """
        rows = torch.arange(len(documents), device=documents.device)[:, None].expand_as(documents)
        numbered = torch.stack([rows, documents], dim=-1).flatten(0, 1)
        runs, lengths = torch.unique_consecutive(numbered, dim=0, return_counts=True)
        firsts = lengths.cumsum(0) - lengths
        real = runs[:, 1] >= 0
        spans = zip(firsts[real].tolist(), lengths[real].tolist(), strict=True)
        return cls(tuple(sorted(spans, key=lambda span: -span[1])), documents.device)

    def mix(self, mixer: Any, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Give each document a row of its own, mix, and put what comes out back in its place; padding gets zeros.

        This needs nothing of the mixer: positions, states, masks and taps begin anew because the row does. Documents of
        like length share a call. A causal mixer never sees the padding after a document; one that looks ahead would, so
        its calls hold documents of one length.
        """
        flat = x.flatten(0, 1)
        mixed = torch.zeros_like(flat)
        for places, inside in self._causal_calls if mixer.causal else self._alike_calls:
            y = mixer(flat[places])
            mixed = mixed.to(y.dtype).index_put((places[inside],), y[inside])
        return mixed.view_as(x)

    @cached_property
    def _causal_calls(self) -> list[Call]:
        return self._calls(alike=False)

    @cached_property
    def _alike_calls(self) -> list[Call]:
        return self._calls(alike=True)

    def _calls(self, alike: bool) -> list[Call]:
        """Sort the documents into calls: of one length if `alike`, else of lengths within the ratio."""
        calls: list[list[tuple[int, int]]] = []
        for span in self.spans:
            longest = calls[-1][0][1] if calls else 0
            if span[1] != longest if alike else span[1] * RATIO <= longest or not calls:
                calls.append([])
            calls[-1].append(span)
        return [self._call(spans) for spans in calls]

    def _call(self, spans: list[tuple[int, int]]) -> Call:
        first, length = torch.tensor(spans, device=self.device).T[..., None]
        offset = torch.arange(spans[0][1], device=self.device)
        return first + torch.minimum(offset, length - 1), offset < length
