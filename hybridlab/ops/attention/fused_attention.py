"""Softmax attention by PyTorch's fused kernels.

Letters: b batch, h heads, g key heads (h is a multiple of g), n queries, t keys, k and v widths.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.kernels.dispatch import HALF


def fused_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g t k"],
    v: Float[Tensor, "b g t v"],
    mask: Bool[Tensor, "*b #n t"] | Float[Tensor, "*b #n t"] | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "b h n v"]:
    """Attend to all keys, under a mask (a floating-point mask is added to the scores), or, if n is
    t, causally."""
    o = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    # cuDNN's kernels are for half precision.
    return _ContiguousGradient.apply(o) if o.is_cuda and o.dtype in HALF else o  # pyright: ignore[reportReturnType]


class _ContiguousGradient(torch.autograd.Function):
    """The identity, with a backward pass that makes the gradient contiguous.

    PyTorch caches cuDNN's plan for a gradient under the shapes and strides of q, k and v, but the
    plan also depends on the strides of the gradient of o: another attention of the same shapes
    whose gradient has another layout silently gets wrong gradients (PyTorch 2.11,
    `aten/src/ATen/native/cudnn/MHA.cpp`).
    """

    @staticmethod
    def forward(ctx: Any, o: Tensor) -> Tensor:
        return o.view_as(o)

    @staticmethod
    def backward(ctx: Any, d_o: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _contiguous_copy(d_o)


# A custom operator, because a compiler does not change its layout.
@torch.library.custom_op("hybridlab::contiguous_copy", mutates_args=())
def _contiguous_copy(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


@_contiguous_copy.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)
