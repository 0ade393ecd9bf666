"""Systems with a unit lower triangular matrix: what the tokens of a chunk do to one another in a delta rule."""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.kernels.dispatch import wide_kernel_serves
from hybridlab.ops.linear.triangular_inverse import unit_lower_inverse


def solve_unit_lower(below: Float[Tensor, "*b c c"], right: Float[Tensor, "*b c v"]) -> Float[Tensor, "*b c v"]:
    """Return (I + below)⁻¹ right by substitution; what is on and above the diagonal of `below` is not read.

    On a GPU an inverse that is built from blocks does as well, and sooner; it is rounded to the dtype of `right`, which
    may be of less precision.

    The product (I - below)(I + below²)(I + below⁴)... would do too, but cancels: if all keys of a delta rule are alike,
    the powers reach 10¹⁷ for c = 64, where the inverse is made of ones.
    """
    if below.shape[-1] == 64 and wide_kernel_serves(below):
        return unit_lower_inverse(below).to(right.dtype) @ right
    solution = torch.linalg.solve_triangular(below, right.to(below.dtype), upper=False, unitriangular=True)
    return solution.to(right.dtype)
