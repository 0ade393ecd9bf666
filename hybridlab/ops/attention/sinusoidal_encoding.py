"""The fixed encoding of positions by sines and cosines."""

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn import functional as F


def sinusoidal_encoding(length: int, width: int, device: torch.device | None = None) -> Float64[Tensor, "t d"]:
    """Return sin(i·w_j) for all j, then cos(i·w_j), for positions i from 0; w falls geometrically
    from 1 to 1 / 10000.

    This is the encoding of arXiv:1706.03762, section 3.5, with sines and cosines in halves as in
    its code; an odd width ends in a 0.
    """
    frequencies = torch.logspace(0, -4, width // 2, dtype=torch.float64, device=device)
    angles = torch.arange(length, dtype=torch.float64, device=device)[:, None] * frequencies
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=-1), (0, width % 2))
