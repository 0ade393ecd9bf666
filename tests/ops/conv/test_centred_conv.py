"""The centred convolution by blocks against a sum of shifts, and against PyTorch."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hybridlab.ops.conv.centred_conv import centred_conv, shifted_centred_conv


@settings(max_examples=40, deadline=None, derandomize=True)
@given(t=st.integers(1, 200), reach=st.integers(0, 40))
def test_blocks_match_the_shifts(t: int, reach: int) -> None:
    torch.manual_seed(t)
    x = torch.randn(2, 3, t, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2 * reach + 1, dtype=torch.float64, requires_grad=True)
    found, expected = centred_conv(x, weight), shifted_centred_conv(x, weight)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    grad_outputs = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, (x, weight), grad_outputs),
        torch.autograd.grad(expected, (x, weight), grad_outputs),
        rtol=1e-10,
        atol=1e-10,
    )


def test_shifts_match_the_convolution_of_pytorch() -> None:
    x, weight = torch.randn(2, 3, 50, 4, dtype=torch.float64), torch.randn(3, 9, dtype=torch.float64)
    expected = F.conv2d(x, weight[:, None, :, None], padding=(4, 0), groups=3)
    torch.testing.assert_close(shifted_centred_conv(x, weight), expected, rtol=1e-10, atol=1e-10)
