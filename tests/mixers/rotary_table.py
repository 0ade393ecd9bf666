"""The rotary positions that layers of transformers are given."""

import torch
from torch import Tensor


def rotary_table(t: int, head_width: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, 1 t k in float64; theirs has angles in float32."""
    half = torch.arange(head_width // 2, dtype=torch.float64)
    angles = torch.arange(t, dtype=torch.float64)[:, None] * base ** (-half * 2 / head_width)
    angles = torch.cat([angles, angles], dim=-1)[None]
    return angles.cos(), angles.sin()
