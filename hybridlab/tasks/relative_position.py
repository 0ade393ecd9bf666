"""The fact `relative_position`: where in its document a target lies, in training lengths."""

import torch
from jaxtyping import Int64
from torch import Tensor

_ENDS = torch.tensor([1, 2, 4, 8])


def relative_position(position: Int64[Tensor, "*shape"], length: int) -> Int64[Tensor, "*shape"]:
    """Return the bucket of each position: 0 below one training length, then 1 to 2, 2 to 4 and 4 to
    8, and 4 beyond."""
    return torch.bucketize(position // length, _ENDS, right=True)
