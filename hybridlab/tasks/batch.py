"""What every task hands to training and evaluation."""

from typing import NamedTuple

from jaxtyping import Int64
from torch import Tensor

IGNORED = -100  # the value that `torch.nn.functional.cross_entropy` leaves out


class Batch(NamedTuple):
    """Rows of tokens, what to predict, and facts about each target that a measure may be broken down by.

    A decoder's `targets` have one token a position, `IGNORED` where nothing is supervised; an encoder's, one class a row.
    `slices` are of the shape of `targets`: what one holds where nothing is supervised means nothing, and a number below 0
    puts a target into no bucket of it. "document" is the sampling unit, counted from 0 in its split: a document, or an
    example. `documents` numbers the document of each token where a row holds several, of which none may see another (below
    0: padding).
    """

    inputs: Int64[Tensor, "b t"]
    targets: Int64[Tensor, "b t"] | Int64[Tensor, " b"]
    slices: dict[str, Int64[Tensor, "b t"] | Int64[Tensor, " b"]]
    documents: Int64[Tensor, "b t"] | None = None
