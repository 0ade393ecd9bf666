"""Chunked linear attention against the recurrence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hybridlab.ops.linear.linear_attention import chunked_linear_attention, recurrent_linear_attention


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    t=st.integers(1, 90),
    chunk=st.integers(1, 100),
    groups=st.integers(1, 2),
    sharing=st.integers(1, 3),
    strength=st.sampled_from([None, 0.0, 0.1, 3.0, 50.0]),
    continued=st.booleans(),
)
def test_chunked_form_matches_the_recurrence(
    t: int, chunk: int, groups: int, sharing: int, strength: float | None, continued: bool
) -> None:
    inputs = draw(t, groups, sharing, strength, continued)
    variables = [x for x in inputs if x is not None]
    o, state = chunked_linear_attention(*inputs, chunk=chunk)
    expected_o, expected_state = recurrent_linear_attention(*inputs)
    torch.testing.assert_close((o, state), (expected_o, expected_state), rtol=1e-9, atol=1e-9)
    grad_o, grad_state = torch.randn_like(o), torch.randn_like(state)
    gradients = torch.autograd.grad([o, state], variables, [grad_o, grad_state])
    expected_gradients = torch.autograd.grad([expected_o, expected_state], variables, [grad_o, grad_state])
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("strength", [20.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strong_decays_keep_everything_finite(strength: float, dtype: torch.dtype) -> None:
    inputs = draw(300, 1, 2, strength, True, dtype)
    o, state = chunked_linear_attention(*inputs)
    gradients = torch.autograd.grad(o.float().sum() + state.sum(), [x for x in inputs if x is not None])
    assert all(each.isfinite().all() for each in (o, state, *gradients))


def test_more_chunks_than_one_level_of_the_prefix_sum() -> None:
    inputs = draw(300, 1, 2, 0.01, True)
    torch.testing.assert_close(
        chunked_linear_attention(*inputs, chunk=1), recurrent_linear_attention(*inputs), rtol=1e-9, atol=1e-9
    )


def test_bfloat16_keeps_the_state_in_float32_and_ignores_autocast() -> None:
    inputs = draw(200, 1, 2, 0.1, False, torch.bfloat16)
    expected, _ = recurrent_linear_attention(*inputs)
    o, state = chunked_linear_attention(*inputs)
    with torch.autocast("cpu", torch.float16):
        again, same = chunked_linear_attention(*inputs)
    assert o.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    assert torch.equal(again, o)
    assert torch.equal(same, state)
    assert (o.float() - expected.float()).norm() < 0.02 * expected.float().norm()


def test_a_float32_state_keeps_growing() -> None:
    # In bfloat16, a running sum of ones stops growing at 256.
    ones = torch.ones(1, 1, 4096, 1, dtype=torch.bfloat16)
    _, state = chunked_linear_attention(ones, ones, ones)
    assert state.item() == 4096


def draw(
    t: int,
    groups: int,
    sharing: int,
    strength: float | None,
    continued: bool,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    torch.manual_seed(t)
    heads, wide = groups * sharing, torch.promote_types(dtype, torch.float32)
    q, k = (torch.randn(2, groups, t, 5, dtype=dtype).requires_grad_() for _ in range(2))
    v = torch.randn(2, heads, t, 3, dtype=dtype).requires_grad_()
    decay = None if strength is None else (-strength * torch.rand(2, heads, t, dtype=wide)).requires_grad_()
    state = torch.randn(2, heads, 5, 3, dtype=wide).requires_grad_() if continued else None
    return q, k, v, decay, state
