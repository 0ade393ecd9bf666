"""A table with one row per position, read at rows of any length."""

import torch
from jaxtyping import Float
from torch import Tensor


def dense_position_rows(table: Float[Tensor, "l r"], t: int) -> Float[Tensor, "t r"]:
    """Give the table's first t rows, or a table stretched to t > l rows: the definition of the op, O(l·t).

    A stretched row is the linear interpolation between the two rows whose centres are the nearest (at the ends: the
    last one), times l/t: the table is read as a function of the position, and its integral over the row is kept.
    """
    length = table.shape[0]
    if t <= length:
        return table[:t]
    distance = _centres(length, t, table.device)[:, None] - torch.arange(length, device=table.device)
    hats = (1 - distance.abs()).clamp(min=0)
    return (hats.to(table.dtype) @ table) * (length / t)


def position_rows(table: Float[Tensor, "l r"], t: int) -> Float[Tensor, "t r"]:
    """Give what `dense_position_rows` gives, by picking two rows for each position."""
    length = table.shape[0]
    if t <= length:
        return table[:t]
    centres = _centres(length, t, table.device)
    before = centres.long()
    after = (before + 1).clamp(max=length - 1)
    share = (centres - before)[:, None].to(table.dtype)
    return torch.lerp(table[before], table[after], share) * (length / t)


def _centres(length: int, t: int, device: torch.device) -> Float[Tensor, " t"]:
    """Return where the centres of t positions lie in a table of `length` rows, never beyond its first and last one."""
    # float64: in float32 the share of a row is wrong by 1 % at a million positions.
    positions = torch.arange(t, device=device, dtype=torch.float64)
    return ((positions + 0.5) * (length / t) - 0.5).clamp(0, length - 1)
