"""Weighted sums over overlapping blocks of tokens: one sum every `stride` tokens."""

from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.precision import autocast_off


def direct_strided_pool(
    x: Float[Tensor, "b g t k"], weight: Float[Tensor, "l k"], stride: int
) -> Float[Tensor, "b g m k"]:
    """Return Σ_j weight_j ⊙ x_{i·stride+j} for each full block i of l tokens: the definition."""
    with autocast_off(x):
        blocks = x.unfold(2, weight.shape[0], stride)  # b g m k l
        return (blocks * weight.to(x.dtype).mT).sum(-1)


def strided_pool(x: Float[Tensor, "b g t k"], weight: Float[Tensor, "l k"], stride: int) -> Float[Tensor, "b g m k"]:
    """Compute `direct_strided_pool` without copying tokens into each of their blocks; stride
    divides l.

    Each stride is summed once for each of its offsets within a block.
    """
    with autocast_off(x):
        overlap, m = weight.shape[0] // stride, max((x.shape[2] - weight.shape[0]) // stride + 1, 0)
        if m == 0:
            return x[:, :, :0]
        strides = x[:, :, : (m + overlap - 1) * stride].unflatten(2, (-1, stride))
        weights = weight.to(x.dtype).unflatten(0, (overlap, stride))
        sums = [(strides[:, :, i : m + i] * weights[i]).sum(3) for i in range(overlap)]
        return sum(sums[1:], sums[0])
