"""Short causal depthwise convolution along time."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.precision import autocast_off


def shifted_causal_conv(
    x: Float[Tensor, "b t d"],
    weight: Float[Tensor, "d l"],
    bias: Float[Tensor, " d"] | None = None,
    past: Float[Tensor, "b l-1 d"] | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b l-1 d"]]:
    """Return y_t = bias + Σ_j weight_j x_{t-l+1+j}, and the last l-1 inputs; `past` is those before x, or zeros."""
    with autocast_off(x):
        joined, remembered = _join(x, weight.shape[1], past)
        shifts = (joined[:, j : j + x.shape[1]] * weight[:, j].to(x.dtype) for j in range(weight.shape[1]))
        y = sum(shifts, torch.zeros_like(x))
        return y if bias is None else y + bias.to(x.dtype), remembered


def causal_conv(
    x: Float[Tensor, "b t d"],
    weight: Float[Tensor, "d l"],
    bias: Float[Tensor, " d"] | None = None,
    past: Float[Tensor, "b l-1 d"] | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b l-1 d"]]:
    """Give what `shifted_causal_conv` gives, by one call of PyTorch's convolution."""
    with autocast_off(x):
        joined, remembered = _join(x, weight.shape[1], past)
        kernel = weight.to(x.dtype)[:, None]
        y = F.conv1d(joined.mT, kernel, None if bias is None else bias.to(x.dtype), groups=x.shape[2])
        return y.mT, remembered


def _join(x: Tensor, length: int, past: Tensor | None) -> tuple[Tensor, Tensor]:
    """Put the past before x; return it with its last l-1 tokens, in the dtype of the past."""
    kept = length - 1
    joined = F.pad(x, (0, 0, kept, 0)) if past is None else torch.cat([past, x.to(past.dtype)], dim=1)
    # A copy: a slice would keep the whole of `joined` in memory.
    return joined.to(x.dtype), joined[:, joined.shape[1] - kept :].clone()
