"""PyTorch's attention with shared keys, masks and another scale, against the formula."""

import pytest
import torch
from torch import Tensor

from hybridlab.ops.attention.fused_attention import _ContiguousGradient, fused_attention


def formula(q: Tensor, k: Tensor, v: Tensor, shown: Tensor, scale: float) -> Tensor:
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    return (q @ k.mT * scale).masked_fill(~shown, -torch.inf).softmax(-1) @ v


@pytest.mark.parametrize("kept", [1, 2, 4])
def test_heads_can_share_keys(kept: int) -> None:
    q = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    k, v = torch.randn(2, 2, kept, 7, 8, dtype=torch.float64)
    seen = torch.ones(7, 7, dtype=torch.bool)
    torch.testing.assert_close(fused_attention(q, k, v), formula(q, k, v, seen, 8**-0.5))
    torch.testing.assert_close(fused_attention(q, k, v, causal=True, scale=3.0), formula(q, k, v, seen.tril(), 3.0))


def test_masks_are_boolean_or_additive() -> None:
    q, k = torch.randn(2, 2, 5, 8, dtype=torch.float64), torch.randn(2, 2, 9, 8, dtype=torch.float64)
    v, shown = torch.randn(2, 2, 9, 3, dtype=torch.float64), torch.rand(2, 1, 5, 9) < 0.5
    shown[..., 4] = True
    added = torch.zeros(2, 1, 5, 9, dtype=torch.float64).masked_fill(~shown, -torch.inf)
    expected = formula(q, k, v, shown, 8**-0.5)
    for mask in (shown, added):
        torch.testing.assert_close(fused_attention(q, k, v, mask), expected)


def test_gradients_are_made_contiguous() -> None:
    o, strides = torch.randn(2, 3, 5, 7, requires_grad=True), []
    for d_o in (torch.randn(2, 3, 5, 7), torch.randn(2, 5, 3, 7).transpose(1, 2)):
        inner = o * 1
        inner.register_hook(lambda grad: strides.append(grad.stride()))
        torch.testing.assert_close(torch.autograd.grad(_ContiguousGradient.apply(inner), o, d_o)[0], d_o)
    assert strides == [(105, 35, 7, 1)] * 2
