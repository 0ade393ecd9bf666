"""The short causal convolution against a sum of shifted sequences."""

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.ops.conv import causal_conv as op
from hybridlab.ops.conv.causal_conv import causal_conv, shifted_causal_conv


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    t=st.one_of(st.integers(1, 20), st.integers(31, 70)),
    length=st.one_of(st.integers(1, 10), st.integers(31, 50)),
    bias=st.booleans(),
    continued=st.booleans(),
)
def test_convolution_matches_the_sum_of_shifts(t: int, length: int, bias: bool, continued: bool) -> None:
    torch.manual_seed(t)
    x = torch.randn(2, t, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, length, dtype=torch.float64, requires_grad=True)
    offset = torch.randn(3, dtype=torch.float64, requires_grad=True) if bias else None
    past = torch.randn(2, length - 1, 3, dtype=torch.float64, requires_grad=True) if continued else None
    found, expected = causal_conv(x, weight, offset, past), shifted_causal_conv(x, weight, offset, past)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    variables = [each for each in (x, weight, offset, past) if each is not None]
    grad_outputs = [torch.randn_like(each) for each in expected]
    torch.testing.assert_close(
        torch.autograd.grad(found, variables, grad_outputs),
        torch.autograd.grad(expected, variables, grad_outputs),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize(("t", "elements", "chunks"), [(11, 12, 64), (12, 1, 64), (12, 1, 5), (3, 1, 2), (1, 1, 64)])
def test_gradients_in_chunks(t: int, elements: int, chunks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(op, "CHUNK_ELEMENTS", elements)
    monkeypatch.setattr(op, "MAX_CHUNKS", chunks)
    torch.manual_seed(t)
    variables = [torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in ((2, t, 3), (3, 4), (3,))]
    found, expected = (form(*variables)[0] for form in (causal_conv, shifted_causal_conv))
    grad_outputs = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, variables, grad_outputs), torch.autograd.grad(expected, variables, grad_outputs)
    )


@pytest.mark.parametrize("length", [1, 4])
def test_operators_pass_the_checks_of_pytorch(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    transposed = torch.randn(3, 9, 2).permute(2, 1, 0).requires_grad_()
    weight = torch.randn(length, 3).mT.requires_grad_()
    causal_conv(transposed, weight)[0].sum().backward()
    padded, contiguous = torch.randn(2, 9, 3, requires_grad=True), weight.detach().contiguous().requires_grad_()
    torch.library.opcheck(torch.ops.hybridlab.short_conv.default, (padded, contiguous, torch.randn(3)))
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # shape checks cannot be traced
    compiled = torch.compile(lambda x, w: causal_conv(x, w)[0] * 2, backend="aot_eager")
    torch.testing.assert_close(compiled(transposed, weight), causal_conv(transposed, weight)[0] * 2)


def test_gradients_of_empty_sequences() -> None:
    x, weight = torch.randn(2, 0, 3, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    grad_x, grad_weight = torch.autograd.grad(causal_conv(x, weight)[0].sum(), (x, weight))
    assert grad_x.shape == x.shape
    assert not grad_weight.any()


def test_first_tap_is_the_oldest() -> None:
    x = torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1)
    y, next_past = causal_conv(x, torch.tensor([[2.0, 3.0]]))
    assert y.flatten().tolist() == [3.0, 32.0, 320.0]
    assert next_past.flatten().tolist() == [100.0]


def test_dtypes_under_autocast() -> None:
    x, weight, past = torch.randn(1, 5, 3, dtype=torch.bfloat16), torch.randn(3, 4), torch.zeros(1, 3, 3)
    with torch.autocast("cpu", torch.float16):
        y, next_past = causal_conv(x, weight, None, past)
    assert y.dtype == torch.bfloat16
    assert next_past.dtype == torch.float32
