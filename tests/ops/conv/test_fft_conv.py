"""The long convolution by Fourier transform against the sum over taps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.ops.conv import fft_conv as op
from hybridlab.ops.conv.fft_conv import direct_long_conv, fft_conv


@settings(max_examples=60, deadline=None, derandomize=True)
@given(t=st.integers(1, 70), length=st.integers(1, 80), anticausal=st.one_of(st.none(), st.integers(0, 80)))
def test_transform_matches_the_sum_over_taps(t: int, length: int, anticausal: int | None) -> None:
    torch.manual_seed(t)
    x = torch.randn(2, t, 3, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(3, length, dtype=torch.float64, requires_grad=True)
    later = None if anticausal is None else torch.randn(3, anticausal, dtype=torch.float64, requires_grad=True)
    found, expected = fft_conv(x, kernel, later), direct_long_conv(x, kernel, later)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    variables = [each for each in (x, kernel, later) if each is not None]
    grad_outputs = torch.randn_like(expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(y, variables, grad_outputs, materialize_grads=True) for y in (found, expected)),
        rtol=1e-9,
        atol=1e-9,
    )


def test_first_taps_read_the_token_and_the_next_one() -> None:
    x = torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1)
    y = fft_conv(x, torch.tensor([[2.0, 3.0]]), torch.tensor([[5.0]]))
    torch.testing.assert_close(y.flatten(), torch.tensor([2.0 + 50.0, 20.0 + 3.0 + 500.0, 200.0 + 30.0]))


def test_nothing_wraps_around() -> None:
    for t in (1, 2, 3, 5, 8, 31, 32, 33, 100):
        x = torch.zeros(1, t, 1, dtype=torch.float64)
        x[:, -1] = 1.0
        y = fft_conv(x, torch.ones(1, 2 * t, dtype=torch.float64))
        torch.testing.assert_close(y, x, rtol=0, atol=1e-12)


def test_dtypes_under_autocast() -> None:
    x, kernel = torch.randn(1, 50, 3, dtype=torch.bfloat16), torch.randn(3, 50)
    with torch.autocast("cpu", torch.float16):
        y = fft_conv(x, kernel)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), direct_long_conv(x.float(), kernel), rtol=1e-2, atol=1e-1)


def test_both_layouts_agree() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 9, 3, dtype=torch.float64), torch.randn(3, 16, dtype=torch.float64)]
    last, first = ([each.clone().requires_grad_() for each in inputs] for _ in range(2))
    expected = op._conv_channels_last(*last)
    found = op._conv_channels_first(first[0].mT.contiguous(), first[1]).mT
    torch.testing.assert_close(found, expected)
    grad_outputs = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, first, grad_outputs), torch.autograd.grad(expected, last, grad_outputs)
    )


@pytest.mark.parametrize("operator", ["conv_channels_last", "conv_channels_first"])
def test_operators_pass_the_checks_of_pytorch(operator: str) -> None:
    inputs = (torch.randn(2, 9, 3, requires_grad=True), torch.randn(3 if operator.endswith("last") else 9, 16))
    torch.library.opcheck(getattr(torch.ops.hybridlab, operator).default, inputs)
