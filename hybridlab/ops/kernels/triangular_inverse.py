"""The inverse of unit lower triangular matrices of 64 as a GPU kernel: one program a matrix."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from hybridlab.ops.kernels.launch import launcher


@triton.jit
def inverse(a):
    """Return (I + the strictly lower part of a)⁻¹ for a of 64, by doubling the size of the blocks that are inverted.

    Products are almost in float32: where keys repeat, the inverse is made of small differences. The loop is one of the
    program: a compiler takes ten times longer over its turns written out.
    """
    i = tl.arange(0, 64)
    joins = (i[:, None] == i[None, :] + 1) & (i[None, :] % 2 == 0)
    found = tl.where(i[:, None] == i[None, :], 1.0, tl.where(joins, -a, 0.0))
    for level in range(1, 6):
        block = i // (1 << level)
        joins = (block[:, None] == block[None, :] + 1) & (block[None, :] % 2 == 0)
        half = tl.dot(tl.where(joins, a, 0.0), found, input_precision="tf32x3")
        found -= tl.dot(found, half, input_precision="tf32x3")
    return found


@triton.jit
def _inverse_kernel(a, found):
    i = tl.arange(0, 64)
    place = tl.program_id(0).to(tl.int64) * 64 * 64 + i[:, None] * 64 + i[None, :]
    tl.store(found + place, inverse(tl.load(a + place)))


@triton_op("hybridlab::unit_lower_inverse", mutates_args={})
def invert(a: Tensor) -> Tensor:
    """Return (I + the strictly lower part of a)⁻¹ for a [n 64 64] in float32; without a gradient."""
    found = torch.empty_like(a, memory_format=torch.contiguous_format)
    launcher(_inverse_kernel)[(len(a),)](a.contiguous(), found, num_warps=4, num_stages=1)
    return found
