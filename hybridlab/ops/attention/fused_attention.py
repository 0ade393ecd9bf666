"""Softmax attention by PyTorch's fused kernels.

Letters: b batch, h heads, g heads that have keys of their own (h is a multiple of g), n queries, t keys, k and v widths.
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
    mask: Bool[Tensor, "*b n t"] | Float[Tensor, "*b n t"] | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "b h n v"]:
    """Attend to all keys, to those that a mask shows (a mask of numbers is added to the scores), or, if n is t, causally."""
    o = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    # cuDNN's kernels are for half precision.
    return _InOneLayout.apply(o) if o.is_cuda and o.dtype in HALF else o  # pyright: ignore[reportReturnType]


class _InOneLayout(torch.autograd.Function):
    """Nothing, but what reaches it backwards goes on in one layout.

    PyTorch keeps the plan that cuDNN made for a gradient by the shapes and strides of q, k and v alone, but the strides of
    the gradient of o are part of it: another attention of the same shapes, whose gradient comes in another layout, would
    get wrong gradients without a word (PyTorch 2.11, `aten/src/ATen/native/cudnn/MHA.cpp`).
    """

    @staticmethod
    def forward(ctx: Any, o: Tensor) -> Tensor:
        return o.view_as(o)

    @staticmethod
    def backward(ctx: Any, d_o: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _laid_out(d_o)


# An operator of its own, whose layout a compiler does not change.
@torch.library.custom_op("hybridlab::laid_out", mutates_args=())
def _laid_out(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


@_laid_out.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)
