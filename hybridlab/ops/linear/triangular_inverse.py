"""Inverses of unit lower triangular matrices, in batches, for the delta rules.

The doubling (I - A)(I + A²)(I + A⁴)... is exact on paper. If keys repeat, however, the powers of A
grow like binomial coefficients, and their rounding errors exceed the result. Building blocks from
inverses of smaller blocks stays as accurate as substitution.

Letters: c size of the matrix, m and p numbers of diagonal blocks, s their size.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.kernels.dispatch import can_use_float32_kernel

SMALL_BLOCK = 16  # blocks up to this size are inverted in one batch; larger ones are built from their halves


def substituted_unit_lower_inverse(a: Float[Tensor, "*b c c"]) -> Float[Tensor, "*b c c"]:
    """Compute (I + the strictly lower part of a)⁻¹ from its definition, by forward substitution."""
    identity = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand_as(a)
    return torch.linalg.solve_triangular(a, identity, upper=False, unitriangular=True)


def unit_lower_inverse(a: Float[Tensor, "*b c c"]) -> Float[Tensor, "*b c c"]:
    """Compute `substituted_unit_lower_inverse` by about 2 log₂ c batched products.

    Most of the products are small. Entries of a on and above the diagonal are ignored and receive a
    gradient of 0.
    """
    with torch.no_grad():
        inverse = _inverse(a)
    return _with_gradient(a, inverse)


def _inverse(a: Float[Tensor, "*b c c"]) -> Float[Tensor, "*b c c"]:
    c = a.shape[-1]
    if c == 64 and can_use_float32_kernel(a):
        from hybridlab.ops.kernels.triangular_inverse import invert

        return invert(a.reshape(-1, c, c)).view(a.shape)
    size = 1 << (c - 1).bit_length()
    padded = F.pad(a, (0, size - c, 0, size - c)) if size > c else a
    inverse = _invert_small(_diagonal_blocks(padded, min(size, SMALL_BLOCK)))
    while inverse.shape[-1] < size:
        inverse = _merge_pairs(inverse, padded)
    return inverse.squeeze(-3)[..., :c, :c]


# The backward pass takes two products instead of the gradients of every forward product. A custom
# operator, because compilers accept those. It covers only the gradient, so that compilers and the
# FLOP counter see the forward products.
@torch.library.custom_op("hybridlab::unit_lower_inverse_with_gradient", mutates_args=())
def _with_gradient(a: Tensor, inverse: Tensor) -> Tensor:
    """Return `inverse`, with the gradient of the inverse of a."""
    return inverse.clone(memory_format=torch.contiguous_format)


@_with_gradient.register_fake
def _(a: Tensor, inverse: Tensor) -> Tensor:
    return torch.empty_like(inverse, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(output)


def _backward(ctx: Any, grad_inverse: Tensor) -> tuple[Tensor, None]:
    """Return the gradient of a, from d(T⁻¹) = -T⁻¹ dT T⁻¹ below the diagonal."""
    (inverse,) = ctx.saved_tensors
    return -(inverse.mT @ grad_inverse @ inverse.mT).tril(-1), None


_with_gradient.register_autograd(_backward, setup_context=_setup_context)


def _diagonal_blocks(a: Float[Tensor, "*b c c"], size: int) -> Float[Tensor, "*b m {size} {size}"]:
    blocks = a.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))  # *b m s m s
    return blocks.diagonal(dim1=-4, dim2=-2).movedim(-1, -3)


def _invert_small(a: Float[Tensor, "*b s s"]) -> Float[Tensor, "*b s s"]:
    """Double the inverted diagonal blocks T until they fill a.

    Each step computes T - T C T, where C couples the two halves of each new block.
    """
    size, half = a.shape[-1], 2
    inverse = torch.eye(size, dtype=a.dtype, device=a.device) - a * _off_diagonal_mask(size, 1, a.device)
    while half < size:
        inverse = inverse - inverse @ (a * _off_diagonal_mask(size, half, a.device)) @ inverse
        half *= 2
    return inverse


def _off_diagonal_mask(size: int, half: int, device: torch.device) -> Bool[Tensor, "{size} {size}"]:
    """Return a mask of the lower left quarter of each diagonal block of size 2·half."""
    block = torch.arange(size, device=device) // half
    return (block[:, None] == block + 1) & (block % 2 == 0)


def _merge_pairs(inverse: Float[Tensor, "*b p s s"], a: Float[Tensor, "*b c c"]) -> Float[Tensor, "*b p//2 2*s 2*s"]:
    """Return the inverses of blocks of twice the size.

    [[X, 0], [C, Y]]⁻¹ = [[X⁻¹, 0], [-Y⁻¹ C X⁻¹, Y⁻¹]].
    """
    half = inverse.shape[-1]
    first, second = inverse.unflatten(-3, (-1, 2)).unbind(-3)
    off_diagonal = _diagonal_blocks(a, 2 * half)[..., half:, :half]
    upper = F.pad(first, (0, half))
    return torch.cat([upper, torch.cat([-(second @ off_diagonal @ first), second], dim=-1)], dim=-2)
