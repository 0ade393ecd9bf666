"""What every task hands to training and evaluation."""

from typing import NamedTuple

from jaxtyping import Int64
from torch import Tensor

IGNORED = -100  # the value that `torch.nn.functional.cross_entropy` leaves out


class Batch(NamedTuple):
    """Rows of tokens, what to predict after each, and facts about each target that a measure may be broken down by.

    `targets` is `IGNORED` where nothing is supervised; what a slice holds there means nothing. `documents` numbers the
    document of each token where a row holds several, of which none may see another (below 0: padding).
    """

    inputs: Int64[Tensor, "b t"]
    targets: Int64[Tensor, "b t"]
    slices: dict[str, Int64[Tensor, "b t"]]
    documents: Int64[Tensor, "b t"] | None = None
