"""The batch that every task yields to training and evaluation."""

from typing import NamedTuple

from jaxtyping import Int64
from torch import Tensor

IGNORED = -100  # the target that `torch.nn.functional.cross_entropy` leaves out


class Batch(NamedTuple):
    """Sequences of tokens, their targets, and facts about each target to break measures down by.

    `targets` has one token a position, `IGNORED` where it is not supervised, or one class a
    sequence. `slices` maps the name of each `Slice` that the task declares to a fact about each
    target, in the shape of `targets`. Facts about unsupervised targets mean nothing, and a fact
    below 0 puts its target into no bucket. "document" is the sampling unit, a document or an
    example, counted from 0 in its split. `documents` numbers the document of each token where a
    sequence holds several, which never see one another; padding has a number below 0. `num_bytes`
    is how many bytes of text each target stands for; None: the task's `bytes_of_token` of it.
    """

    inputs: Int64[Tensor, "b t"]
    targets: Int64[Tensor, "b t"] | Int64[Tensor, " b"]
    slices: dict[str, Int64[Tensor, "b t"] | Int64[Tensor, " b"]]
    documents: Int64[Tensor, "b t"] | None = None
    num_bytes: Int64[Tensor, "b t"] | None = None
