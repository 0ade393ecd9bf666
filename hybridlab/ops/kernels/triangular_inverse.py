"""GPU kernel for the inverse of unit lower triangular 64 x 64 matrices: one program per matrix."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from hybridlab.ops.kernels.launch import launcher


@triton.jit
def inverse(a):
    """Return (I + the strictly lower part of a)⁻¹ for a of 64 x 64, by doubling the size of the
    inverted blocks.

    Products are close to float32 precision: if keys repeat, the inverse consists of small
    differences. The loop is not unrolled, because that takes ten times as long to compile.
    """
    i = tl.arange(0, 64)
    joins = (i[:, None] == i[None, :] + 1) & (i[None, :] % 2 == 0)
    result = tl.where(i[:, None] == i[None, :], 1.0, tl.where(joins, -a, 0.0))
    for level in range(1, 6):
        block = i // (1 << level)
        joins = (block[:, None] == block[None, :] + 1) & (block[None, :] % 2 == 0)
        half = tl.dot(tl.where(joins, a, 0.0), result, input_precision="tf32x3")
        result -= tl.dot(result, half, input_precision="tf32x3")
    return result


@triton.jit
def _inverse_kernel(a, result):
    i = tl.arange(0, 64)
    offset = tl.program_id(0).to(tl.int64) * 64 * 64 + i[:, None] * 64 + i[None, :]
    tl.store(result + offset, inverse(tl.load(a + offset)))


@triton_op("hybridlab::unit_lower_inverse", mutates_args={})
def invert(a: Tensor) -> Tensor:
    """Return (I + the strictly lower part of a)⁻¹ for a [n 64 64] in float32; it has no
    gradient."""
    result = torch.empty_like(a, memory_format=torch.contiguous_format)
    launcher(_inverse_kernel)[(len(a),)](a.contiguous(), result, num_warps=4, num_stages=1)
    return result
