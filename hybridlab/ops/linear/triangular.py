"""Unit lower triangular systems: how the tokens of a chunk interact in a delta rule."""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.kernels.dispatch import can_use_float32_kernel
from hybridlab.ops.linear.triangular_inverse import unit_lower_inverse


def solve_unit_lower(lower: Float[Tensor, "*b c c"], rhs: Float[Tensor, "*b c v"]) -> Float[Tensor, "*b c v"]:
    """Return (I + lower)⁻¹ rhs by substitution.

    Entries of `lower` on and above the diagonal are ignored. On a GPU, an inverse built from blocks
    is as accurate and faster; it is rounded to the dtype of `rhs`, which can be a lower precision.

    The product (I - lower)(I + lower²)(I + lower⁴)... suffers from cancellation: if all keys of a
    delta rule are equal, its powers reach 10¹⁷ for c = 64, although the entries of the inverse are
    0 and ±1.
    """
    if lower.shape[-1] == 64 and can_use_float32_kernel(lower):
        return unit_lower_inverse(lower).to(rhs.dtype) @ rhs
    solution = torch.linalg.solve_triangular(lower, rhs.to(lower.dtype), upper=False, unitriangular=True)
    return solution.to(rhs.dtype)
