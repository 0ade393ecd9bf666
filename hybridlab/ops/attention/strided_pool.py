"""Weighted sums over blocks of tokens that overlap: one sum every `stride` tokens."""

from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.precision import autocast_off


def direct_strided_pool(
    x: Float[Tensor, "b g t k"], weight: Float[Tensor, "l k"], stride: int
) -> Float[Tensor, "b g m k"]:
    """Return Σ_j weight_j ⊙ x_{i·stride+j} for each block i of l tokens that is full: the definition."""
    with autocast_off(x):
        blocks = x.unfold(2, weight.shape[0], stride)  # b g m k l
        return (blocks * weight.to(x.dtype).mT).sum(-1)


def strided_pool(x: Float[Tensor, "b g t k"], weight: Float[Tensor, "l k"], stride: int) -> Float[Tensor, "b g m k"]:
    """Give what `direct_strided_pool` gives, with no copy of a token for each block that it is in; stride divides l.

    Each stride is summed once for each place that it can have in a block.
    """
    with autocast_off(x):
        places, m = weight.shape[0] // stride, max((x.shape[2] - weight.shape[0]) // stride + 1, 0)
        if m == 0:
            return x[:, :, :0]
        strides = x[:, :, : (m + places - 1) * stride].unflatten(2, (-1, stride))
        weights = weight.to(x.dtype).unflatten(0, (places, stride))
        sums = [(strides[:, :, i : m + i] * weights[i]).sum(3) for i in range(places)]
        return sum(sums[1:], sums[0])
