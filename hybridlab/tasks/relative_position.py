"""The slice `relative_position`: where in its document a target is, in units of the training length."""

import torch
from jaxtyping import Int64
from torch import Tensor

_ENDS = torch.tensor([1, 2, 4, 8])


def relative_position(position: Int64[Tensor, "*shape"], length: int) -> Int64[Tensor, "*shape"]:
    """Return 0 below one training length, 1 from one to two, 2 from two to four, 3 from four to eight, 4 beyond."""
    return torch.bucketize(position // length, _ENDS, right=True)
