"""Rotary position embedding."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hybridlab.ops.precision import accumulation_dtype


def rotate(
    x: Float[Tensor, "b h t k"], turns: tuple[Float[Tensor, "*b 1 t k/2"], Float[Tensor, "*b 1 t k/2"]]
) -> Float[Tensor, "b h t k"]:
    """Rotate each pair (x_i, x_{i+k/2}) by the angle whose cosine and sine are `turns`.

    The product of two rotated vectors depends only on the difference of their positions (RoFormer,
    2104.09864).
    """
    cosine, sine = turns
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1).to(x.dtype)


def rotary_turns(
    positions: Int[Tensor, "*b t"], like: Float[Tensor, "b h t k"], base: float
) -> tuple[Float[Tensor, "*b 1 t k/2"], Float[Tensor, "*b 1 t k/2"]]:
    """Return the cosine and sine of position · base^(-2i/k) for i < k/2, broadcastable over the
    heads of `like`."""
    return _turns(positions, like.shape[-1], base, accumulation_dtype(like))


# A custom operator: a compiler would recompute each cosine for every head.
@torch.library.custom_op("hybridlab::rotary_turns", mutates_args=())
def _turns(positions: Tensor, width: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    positions = positions.contiguous()  # so that the cosines are contiguous in any layout
    exponents = torch.arange(0, width, 2, device=positions.device, dtype=dtype) / width
    angles = positions.to(dtype)[..., None, :, None] * base**-exponents
    return angles.cos(), angles.sin()


@_turns.register_fake
def _(positions: Tensor, width: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    shape = (*positions.shape[:-1], 1, positions.shape[-1], -(-width // 2))
    return positions.new_empty(shape, dtype=dtype), positions.new_empty(shape, dtype=dtype)
