"""Functions that layers written from equations share, in their obvious form."""

import math

import torch
from torch import Tensor


def silu(x: Tensor) -> Tensor:
    """Return x σ(x)."""
    return x / (1 + torch.exp(-x))


def gelu(x: Tensor) -> Tensor:
    """Return x Φ(x)."""
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def rotated(x: Tensor, base: float) -> Tensor:
    """Rotate the pairs (i, i + k/2) of one head's channels, b t k, by t base^(-2i/k)."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * base ** (-torch.arange(half, dtype=x.dtype) / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], dim=-1)


def filtered(x: Tensor, behind: Tensor, ahead: Tensor | None = None) -> Tensor:
    """Return Σ_j behind_j x_{t-j} + Σ_j ahead_j x_{t+1+j}, with filters l d, one token at a
    time."""
    t, sums = x.shape[1], []
    for i in range(t):
        back, forth = min(len(behind), i + 1), 0 if ahead is None else min(len(ahead), t - i - 1)
        y = (behind[:back].flip(0) * x[:, i + 1 - back : i + 1]).sum(1)
        sums.append(y if not forth else y + (ahead[:forth] * x[:, i + 1 : i + 1 + forth]).sum(1))  # type: ignore[index]
    return torch.stack(sums, dim=1)
