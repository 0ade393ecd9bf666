"""The inverse of unit lower triangular matrices of 64 as a GPU kernel: one program a matrix, from blocks of 16."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

SIZE = 64


@triton.jit
def product(a, b):
    """Multiply small blocks almost in float32: where keys repeat, the inverse is made of small differences."""
    return tl.dot(a, b, input_precision="tf32x3")


@triton.jit
def block_inverse(a, size: tl.constexpr):
    """Return (I + the strictly lower part of a)⁻¹ for a block of 16, by doubling the size of what is inverted."""
    i = tl.arange(0, size)
    joins = (i[:, None] == i[None, :] + 1) & (i[None, :] % 2 == 0)
    found = tl.where(i[:, None] == i[None, :], 1.0, tl.where(joins, -a, 0.0))
    for level in tl.static_range(1, 4):
        block = i // (1 << level)
        joins = (block[:, None] == block[None, :] + 1) & (block[None, :] % 2 == 0)
        found -= product(found, product(tl.where(joins, a, 0.0), found))
    return found


@triton.jit
def _at(pointer, row: tl.constexpr, column: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * 64 * 64
    return pointer + at + (row + tl.arange(0, 16))[:, None] * 64 + column + tl.arange(0, 16)[None, :]


@triton.jit
def _inverse_kernel(a, inverse):
    t00, t11 = block_inverse(tl.load(_at(a, 0, 0)), 16), block_inverse(tl.load(_at(a, 16, 16)), 16)
    t22, t33 = block_inverse(tl.load(_at(a, 32, 32)), 16), block_inverse(tl.load(_at(a, 48, 48)), 16)
    a10, a21, a32 = tl.load(_at(a, 16, 0)), tl.load(_at(a, 32, 16)), tl.load(_at(a, 48, 32))
    a20, a31, a30 = tl.load(_at(a, 32, 0)), tl.load(_at(a, 48, 16)), tl.load(_at(a, 48, 0))
    t10, t21, t32 = -product(t11, product(a10, t00)), -product(t22, product(a21, t11)), -product(t33, product(a32, t22))
    t20 = -product(t22, product(a20, t00) + product(a21, t10))
    t31 = -product(t33, product(a31, t11) + product(a32, t21))
    t30 = -product(t33, product(a30, t00) + product(a31, t10) + product(a32, t20))
    tl.store(_at(inverse, 0, 0), t00)
    tl.store(_at(inverse, 16, 0), t10)
    tl.store(_at(inverse, 16, 16), t11)
    tl.store(_at(inverse, 32, 0), t20)
    tl.store(_at(inverse, 32, 16), t21)
    tl.store(_at(inverse, 32, 32), t22)
    tl.store(_at(inverse, 48, 0), t30)
    tl.store(_at(inverse, 48, 16), t31)
    tl.store(_at(inverse, 48, 32), t32)
    tl.store(_at(inverse, 48, 48), t33)


@triton_op("hybridlab::unit_lower_inverse", mutates_args={})
def invert(a: Tensor) -> Tensor:
    """Return (I + the strictly lower part of a)⁻¹ for a [n 64 64] in float32; without a gradient."""
    inverse = torch.zeros_like(a, memory_format=torch.contiguous_format)
    wrap_triton(_inverse_kernel)[(len(a),)](a.contiguous(), inverse, num_warps=2, num_stages=1)
    return inverse
