"""The chunked diagonal plus rank-1 recurrence against its loop and a reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.linear.channel_delta_rule import recurrent_channel_delta_rule
from hybridlab.ops.linear.diagonal_plus_low_rank import chunked_diagonal_plus_low_rank, recurrent_diagonal_plus_low_rank
from tests.ops.test_references import reference


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    t=st.integers(1, 90),
    chunk=st.sampled_from([1, 2, 8, 16, 64, 128]),
    strength=st.sampled_from([0.0, 0.1, 0.6, 50.0]),
    safe_block=st.sampled_from([1, 4, 64]),
    continued=st.booleans(),
)
def test_chunked_form_matches_the_recurrence(
    t: int, chunk: int, strength: float, safe_block: int, continued: bool
) -> None:
    inputs = draw(t, strength, continued)
    variables = [x for x in inputs if x is not None]
    found = chunked_diagonal_plus_low_rank(*inputs, chunk=chunk, safe_block=safe_block if strength < 1 else 1)
    expected = recurrent_diagonal_plus_low_rank(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    grad_outputs = [torch.randn_like(each) for each in expected]
    gradients = (torch.autograd.grad(each, variables, grad_outputs) for each in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("strength", "safe_block"), [(0.6065, 64), (20.0, 1), (1000.0, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strong_decays_keep_everything_finite(strength: float, safe_block: int, dtype: torch.dtype) -> None:
    inputs = draw(300, strength, True, dtype)
    with torch.no_grad():
        inputs[5].fill_(-strength)
    o, state = chunked_diagonal_plus_low_rank(*inputs, chunk=64, safe_block=safe_block)
    gradients = torch.autograd.grad(o.float().sum() + state.sum(), [x for x in inputs if x is not None])
    assert all(each.isfinite().all() for each in (o, state, *gradients))


def test_reading_and_writing_along_the_key_is_the_delta_rule() -> None:
    q, _, v, a, _, decay, start = draw(50, 0.3, True)
    beta = torch.rand(2, 3, 50, dtype=torch.float64)
    written = beta[..., None] * -a
    found = recurrent_diagonal_plus_low_rank(q, written, v, a * decay.exp(), written, decay, start)
    torch.testing.assert_close(found, recurrent_channel_delta_rule(q, -a, v, beta, decay, start), rtol=1e-9, atol=1e-9)


def test_bfloat16_keeps_the_state_in_float32_and_ignores_autocast() -> None:
    inputs = draw(200, 0.1, False, torch.bfloat16)
    expected, _ = recurrent_diagonal_plus_low_rank(*inputs)
    o, state = chunked_diagonal_plus_low_rank(*inputs, safe_block=64)
    with torch.autocast("cpu", torch.float16):
        again, same = chunked_diagonal_plus_low_rank(*inputs, safe_block=64)
    assert o.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    assert torch.equal(again, o)
    assert torch.equal(same, state)
    assert (o.float() - expected.float()).norm() < 0.02 * expected.float().norm()


@pytest.mark.parametrize("name", ["dplr_recurrence", "dplr_chunkwise"])
def test_dplr_matches_flash_linear_attention(name: str) -> None:
    q, k, v, a, b, decay, start = (x.detach().float().requires_grad_() for x in draw(64, 0.6, True) if x is not None)
    naive = getattr(reference("generalized_delta_rule/dplr/naive.py"), name)
    expected, last = naive(q, k, v, a, b, decay, initial_state=start)
    found, state = chunked_diagonal_plus_low_rank(q * 5**-0.5, k, v, a, b, decay, start, 16, 16)
    torch.testing.assert_close((found, state), (expected, last), rtol=1e-4, atol=1e-4)
    grad_outputs, variables = torch.randn_like(expected), [q, k, v, a, b, decay, start]
    gradients = (torch.autograd.grad(each, variables, grad_outputs) for each in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


def draw(
    t: int, strength: float, continued: bool, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Draw inputs as in RWKV-7: a is a negated unit vector, b that vector scaled by channel."""
    torch.manual_seed(t)
    wide = torch.promote_types(dtype, torch.float32)
    q, k = (torch.randn(2, 3, t, 5, dtype=dtype).requires_grad_() for _ in range(2))
    v = torch.randn(2, 3, t, 4, dtype=dtype).requires_grad_()
    unit = F.normalize(torch.randn(2, 3, t, 5, dtype=wide), dim=-1)
    a, b = (-unit).to(dtype).requires_grad_(), (unit * torch.rand_like(unit)).to(dtype).requires_grad_()
    decay = (-strength * torch.rand(2, 3, t, 5, dtype=wide)).requires_grad_()
    start = torch.randn(2, 3, 5, 4, dtype=wide).requires_grad_() if continued else None
    return q, k, v, a, b, decay, start
