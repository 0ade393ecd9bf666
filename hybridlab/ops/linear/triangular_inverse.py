"""Inverse of unit lower triangular matrices, many at once: what the tokens of a chunk do to one another in a delta rule.

The doubling (I - A)(I + A²)(I + A⁴)... is exact on paper, but where keys repeat the powers of A grow like binomials and
their rounding errors exceed the result. Blocks built from inverses of smaller blocks stay as accurate as substitution.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.kernels.dispatch import wide_kernel_serves

# Blocks up to this size are inverted side by side in one batch of small matrices; larger ones from their halves.
SMALL = 16


def substituted_unit_lower_inverse(a: Float[Tensor, "*b c c"]) -> Float[Tensor, "*b c c"]:
    """Return (I + the strictly lower part of a)⁻¹ by forward substitution: the definition."""
    identity = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand_as(a)
    return torch.linalg.solve_triangular(a, identity, upper=False, unitriangular=True)


def unit_lower_inverse(a: Float[Tensor, "*b c c"]) -> Float[Tensor, "*b c c"]:
    """Give what `substituted_unit_lower_inverse` gives by about 2 log₂ c batched products, most of them small.

    What stands on and above the diagonal of a is ignored, and gets a gradient of 0.
    """
    with torch.no_grad():
        inverse = _inverse(a)
    return _with_gradient(a, inverse)


def _inverse(a: Float[Tensor, "*b c c"]) -> Float[Tensor, "*b c c"]:
    c = a.shape[-1]
    if c == 64 and wide_kernel_serves(a):
        from hybridlab.ops.kernels.triangular_inverse import invert

        return invert(a.reshape(-1, c, c)).view(a.shape)
    size = 1 << (c - 1).bit_length()
    padded = F.pad(a, (0, size - c, 0, size - c)) if size > c else a
    inverse = _invert_small(_diagonal_blocks(padded, min(size, SMALL)))
    while inverse.shape[-1] < size:
        inverse = _join_pairs(inverse, padded)
    return inverse.squeeze(-3)[..., :c, :c]


# Two products backward, instead of the gradients of every product forward. An operator of its own, because compilers
# take those; and of the gradient alone, so that they and the counter of costs still see the products forward.
@torch.library.custom_op("hybridlab::unit_lower_inverse_with_gradient", mutates_args=())
def _with_gradient(a: Tensor, inverse: Tensor) -> Tensor:
    """Return the inverse that was found for a, as a function of a."""
    return inverse.clone(memory_format=torch.contiguous_format)


@_with_gradient.register_fake
def _(a: Tensor, inverse: Tensor) -> Tensor:
    return torch.empty_like(inverse, memory_format=torch.contiguous_format)


def _keep_inverse(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(output)


def _gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    """Return what reaches a: d(T⁻¹) = -T⁻¹ dT T⁻¹, below the diagonal."""
    (inverse,) = ctx.saved_tensors
    return -(inverse.mT @ gradient @ inverse.mT).tril(-1), None


_with_gradient.register_autograd(_gradient, setup_context=_keep_inverse)


def _diagonal_blocks(a: Float[Tensor, "*b m*s m*s"], size: int) -> Float[Tensor, "*b m s s"]:
    blocks = a.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))  # *b m s m s
    return blocks.diagonal(dim1=-4, dim2=-2).movedim(-1, -3)


def _invert_small(a: Float[Tensor, "*b s s"]) -> Float[Tensor, "*b s s"]:
    """Double the size of the inverted blocks on the diagonal: with T their inverses, T - T (what joins two) T."""
    size, half = a.shape[-1], 2
    inverse = torch.eye(size, dtype=a.dtype, device=a.device) - a * _joining(size, 1, a.device)
    while half < size:
        inverse = inverse - inverse @ (a * _joining(size, half, a.device)) @ inverse
        half *= 2
    return inverse


def _joining(size: int, half: int, device: torch.device) -> Bool[Tensor, "s s"]:
    """Mark the lower left quarter of each block of 2·half on the diagonal."""
    number = torch.arange(size, device=device) // half
    return (number[:, None] == number + 1) & (number % 2 == 0)


def _join_pairs(inverse: Float[Tensor, "*b 2*m s s"], a: Float[Tensor, "*b c c"]) -> Float[Tensor, "*b m 2*s 2*s"]:
    """Return the inverses of blocks of twice the size: [[X, 0], [C, Y]]⁻¹ = [[X⁻¹, 0], [-Y⁻¹ C X⁻¹, Y⁻¹]]."""
    half = inverse.shape[-1]
    first, second = inverse.unflatten(-3, (-1, 2)).unbind(-3)
    joining = _diagonal_blocks(a, 2 * half)[..., half:, :half]
    upper = F.pad(first, (0, half))
    return torch.cat([upper, torch.cat([-(second @ joining @ first), second], dim=-1)], dim=-2)
