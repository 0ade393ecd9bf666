"""Changes of tokens, and which outputs they may move."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hybridlab.evaluation.leak.lengths import cuts

# The sequence of a batch that stays as it is, so that whatever moves it comes from the others: the
# first of the batch, the last, or the one beside it.
STILL = 1


class Change(NamedTuple):
    """Other tokens, and where outputs must stay as they are."""

    tokens: Int[Tensor, "b t"]
    fixed: Bool[Tensor, "b t"]
    cuts: list[int]  # the last unchanged position of each sequence


def changes(
    tokens: Int[Tensor, "b t"],
    vocabulary: int,
    documents: Int[Tensor, "b t"] | None,
    *,
    causal: bool,
    count: int,
    first: int = 0,
) -> list[Change]:
    """Draw `count` changes of a batch: of all that follows another cut in each sequence but the
    still one, or, in packed sequences, of all in the same document that follows it; `first` says
    with which cuts to begin.
    """
    batch, length = tokens.shape
    tried = cuts(length)
    position = torch.arange(length, device=tokens.device)
    found = []
    for number in range(first, first + count):
        last = [tried[(number * batch + row) % len(tried)] if tried else 0 for row in range(batch)]
        last[STILL] = length - 1
        cut = torch.tensor(last, device=tokens.device)[:, None]
        changed = together = position > cut
        if documents is not None:  # the document of the first changed token alone
            together = documents == documents.gather(1, (cut + 1).clamp(max=length - 1))
            changed = changed & together
        other = (tokens + torch.randint_like(tokens, 1, max(vocabulary, 2))) % vocabulary
        if causal:
            fixed = ~changed
        else:  # all of a changed document, or sequence, may move
            fixed = ~(changed.any(1, keepdim=True) & (together if documents is not None else True))
            fixed = fixed.expand_as(changed)
        found.append(Change(torch.where(changed, other, tokens), fixed, last))
    return found


def documents_of(batch: int, length: int, device: torch.device) -> Int[Tensor, "b t"]:
    """Return the documents of packed sequences, with other bounds in each, and padding at the end
    of the last."""
    position = torch.arange(length, device=device)
    rows = torch.arange(batch, device=device)
    bounds = torch.stack([length * (3 + rows) // 11, length * (7 - rows) // 11 + 1], dim=1)
    documents = (position >= bounds[..., :1]).long() + (position >= bounds[..., 1:]).long()
    documents[-1, length - length // 8 :] = -1
    return documents
