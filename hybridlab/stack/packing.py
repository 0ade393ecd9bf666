"""Rows that hold several documents, of which none may see another."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Documents whose lengths differ by less than this share a call, padded to the longest: at most half of it is padding.
RATIO = 2


@dataclass(frozen=True)
class Packing:
    """Where the documents of packed rows lie: one (first, length) per document, in the flattened rows, longest first."""

    spans: tuple[tuple[int, int], ...]

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
        return cls(tuple(sorted(spans, key=lambda span: -span[1])))

    def mix(self, mixer: Any, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Give each document a row of its own, mix, and put what comes out back in its place; padding gets zeros.

        This needs nothing of the mixer: positions, states, masks and taps begin anew because the row does. Documents of
        like length share a call. A causal mixer never sees the padding after a document; one that looks ahead would, so
        its calls hold documents of one length.
        """
        flat = x.flatten(0, 1)
        mixed = torch.zeros_like(flat)
        for firsts, lengths in self._calls(alike=not mixer.causal):
            first, length = (torch.tensor(each, device=x.device)[:, None] for each in (firsts, lengths))
            offset = torch.arange(max(lengths), device=x.device)
            inside = offset < length
            places = first + torch.minimum(offset, length - 1)
            y = mixer(flat[places])
            mixed = mixed.to(y.dtype).index_put((places[inside],), y[inside])
        return mixed.view_as(x)

    def _calls(self, alike: bool) -> list[tuple[list[int], list[int]]]:
        """Sort the documents into calls: of one length if `alike`, else of lengths within the ratio."""
        calls: list[tuple[list[int], list[int]]] = []
        for first, length in self.spans:
            longest = calls[-1][1][0] if calls else 0
            if length != longest if alike else length * RATIO <= longest or not calls:
                calls.append(([], []))
            calls[-1][0].append(first)
            calls[-1][1].append(length)
        return calls
