"""Chunked linear attention with decays per channel against the recurrence and a reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.linear.gated_linear_attention import chunked_gated_linear_attention, recurrent_gated_linear_attention
from tests.ops.test_references import reference


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    t=st.integers(1, 90),
    chunk=st.sampled_from([1, 2, 8, 16, 64, 128]),
    strength=st.sampled_from([0.0, 0.1, 3.0, 50.0]),
    continued=st.booleans(),
)
def test_chunked_form_matches_the_recurrence(t: int, chunk: int, strength: float, continued: bool) -> None:
    inputs = draw(t, strength, continued)
    variables = [x for x in inputs if x is not None]
    found, expected = chunked_gated_linear_attention(*inputs, chunk=chunk), recurrent_gated_linear_attention(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    grad_outputs = [torch.randn_like(each) for each in expected]
    gradients = (torch.autograd.grad(each, variables, grad_outputs) for each in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("strength", [20.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strong_decays_keep_everything_finite(strength: float, dtype: torch.dtype) -> None:
    inputs = draw(300, strength, True, dtype)
    o, state = chunked_gated_linear_attention(*inputs)
    gradients = torch.autograd.grad(o.float().sum() + state.sum(), [x for x in inputs if x is not None])
    assert all(each.isfinite().all() for each in (o, state, *gradients))


def test_bfloat16_keeps_the_state_in_float32_and_ignores_autocast() -> None:
    inputs = draw(200, 0.1, False, torch.bfloat16)
    expected, _ = recurrent_gated_linear_attention(*inputs)
    o, state = chunked_gated_linear_attention(*inputs)
    with torch.autocast("cpu", torch.float16):
        again, same = chunked_gated_linear_attention(*inputs)
    assert o.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    assert torch.equal(again, o)
    assert torch.equal(same, state)
    assert (o.float() - expected.float()).norm() < 0.02 * expected.float().norm()


def test_gla_matches_flash_linear_attention() -> None:
    torch.manual_seed(0)
    q, k, v = (x.requires_grad_() for x in torch.randn(3, 2, 70, 4, 8))
    g = (F.logsigmoid(torch.randn(2, 70, 4, 8)) / 2).requires_grad_()
    start = torch.randn(2, 4, 8, 8, requires_grad=True)
    naive = reference("gla/naive.py").naive_recurrent_gla
    expected, last = naive(q, k, v, g, initial_state=start, output_final_state=True)
    found, state = chunked_gated_linear_attention(*(x.transpose(1, 2) for x in (q * 8**-0.5, k, v, g)), start)
    found = found.transpose(1, 2)
    torch.testing.assert_close((found, state), (expected, last), rtol=1e-4, atol=1e-4)
    grad_outputs, variables = torch.randn_like(expected), [q, k, v, g, start]
    gradients = (torch.autograd.grad(each, variables, grad_outputs) for each in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


def draw(
    t: int, strength: float, continued: bool, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    torch.manual_seed(t)
    wide = torch.promote_types(dtype, torch.float32)
    q, k = (torch.randn(2, 3, t, 5, dtype=dtype).requires_grad_() for _ in range(2))
    v = torch.randn(2, 3, t, 4, dtype=dtype).requires_grad_()
    decay = (-strength * torch.rand(2, 3, t, 5, dtype=wide)).requires_grad_()
    return q, k, v, decay, torch.randn(2, 3, 5, 4, dtype=wide).requires_grad_() if continued else None
