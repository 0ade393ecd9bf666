"""Long convolution by the Fourier transform against the sum over taps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.ops.conv import fft_conv as op
from hybridlab.ops.conv.fft_conv import direct_long_conv, fft_conv


@settings(max_examples=60, deadline=None, derandomize=True)
@given(t=st.integers(1, 70), length=st.integers(1, 80), ahead=st.one_of(st.none(), st.integers(0, 80)))
def test_transform_is_the_sum_over_taps(t: int, length: int, ahead: int | None) -> None:
    torch.manual_seed(t)
    x = torch.randn(2, t, 3, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(3, length, dtype=torch.float64, requires_grad=True)
    later = None if ahead is None else torch.randn(3, ahead, dtype=torch.float64, requires_grad=True)
    found, wanted = fft_conv(x, kernel, later), direct_long_conv(x, kernel, later)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    sought = [each for each in (x, kernel, later) if each is not None]
    into = torch.randn_like(wanted)
    torch.testing.assert_close(
        *(torch.autograd.grad(y, sought, into, materialize_grads=True) for y in (found, wanted)), rtol=1e-9, atol=1e-9
    )


def test_first_taps_look_at_the_token_and_at_the_next() -> None:
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


def test_columns_give_what_rows_give() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 9, 3, dtype=torch.float64), torch.randn(3, 16, dtype=torch.float64)]
    rows, columns = ([each.clone().requires_grad_() for each in inputs] for _ in range(2))
    wanted = op._convolution_of_rows(*rows)
    found = op._convolution_of_columns(columns[0].mT.contiguous(), columns[1]).mT
    torch.testing.assert_close(found, wanted)
    into = torch.randn_like(wanted)
    torch.testing.assert_close(torch.autograd.grad(found, columns, into), torch.autograd.grad(wanted, rows, into))


@pytest.mark.parametrize("operator", ["convolution_of_rows", "convolution_of_columns"])
def test_operators_say_what_they_give(operator: str) -> None:
    inputs = (torch.randn(2, 9, 3, requires_grad=True), torch.randn(3 if operator.endswith("rows") else 9, 16))
    torch.library.opcheck(getattr(torch.ops.hybridlab, operator).default, inputs)
