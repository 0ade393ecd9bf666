"""The chunked delta rule with decays per channel against the recurrence and a reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.linear.channel_delta_rule import chunked_channel_delta_rule, recurrent_channel_delta_rule
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
    found, expected = chunked_channel_delta_rule(*inputs, chunk=chunk), recurrent_channel_delta_rule(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    grad_outputs = [torch.randn_like(each) for each in expected]
    gradients = (torch.autograd.grad(each, variables, grad_outputs) for each in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("strength", [20.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strong_decays_keep_everything_finite(strength: float, dtype: torch.dtype) -> None:
    inputs = draw(300, strength, True, dtype)
    o, state = chunked_channel_delta_rule(*inputs)
    gradients = torch.autograd.grad(o.float().sum() + state.sum(), [x for x in inputs if x is not None])
    assert all(each.isfinite().all() for each in (o, state, *gradients))


@pytest.mark.parametrize("strength", [1.0, 2.0])
def test_repeated_keys_lose_no_precision_in_float32(strength: float) -> None:
    _, k, v, _, decay, _ = draw(512, 0.0, False, torch.float32)
    k = k[:, :, :1].expand_as(k)
    beta = torch.full(k.shape[:3], strength)
    narrow = (k, k, v, beta, decay)
    expected, _ = recurrent_channel_delta_rule(*(x.double() for x in narrow))
    o, _ = chunked_channel_delta_rule(*narrow, chunk=64)
    assert (o - expected).norm() < 1e-4 * expected.norm()


def test_bfloat16_keeps_the_state_in_float32_and_ignores_autocast() -> None:
    inputs = draw(200, 0.1, False, torch.bfloat16)
    expected, _ = recurrent_channel_delta_rule(*inputs)
    o, state = chunked_channel_delta_rule(*inputs)
    with torch.autocast("cpu", torch.float16):
        again, same = chunked_channel_delta_rule(*inputs)
    assert o.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    assert torch.equal(again, o)
    assert torch.equal(same, state)
    assert (o.float() - expected.float()).norm() < 0.02 * expected.float().norm()


@pytest.mark.parametrize("name", ["naive_recurrent_kda", "naive_chunk_kda"])
def test_kda_matches_flash_linear_attention(name: str) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 64, 4, 8)
    q, k, v = q.requires_grad_(), F.normalize(k, dim=-1).requires_grad_(), v.requires_grad_()
    g = (F.logsigmoid(torch.randn(2, 64, 4, 8)) / 2).requires_grad_()
    beta = torch.rand(2, 64, 4, requires_grad=True)
    start = torch.randn(2, 4, 8, 8, requires_grad=True)
    naive = getattr(reference("kda/naive.py"), name)
    expected, last = naive(q=q, k=k, v=v, g=g, beta=beta, scale=1.0, initial_state=start, output_final_state=True)
    found, state = chunked_channel_delta_rule(*(x.transpose(1, 2) for x in (q, k, v, beta, g)), start, 32)
    found = found.transpose(1, 2)
    torch.testing.assert_close((found, state), (expected, last), rtol=1e-4, atol=1e-4)
    grad_outputs, variables = torch.randn_like(expected), [q, k, v, beta, g, start]
    gradients = (torch.autograd.grad(each, variables, grad_outputs) for each in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


def draw(
    t: int, strength: float, continued: bool, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    torch.manual_seed(t)
    wide = torch.promote_types(dtype, torch.float32)
    q, k = torch.randn(2, 2, 3, t, 5, dtype=wide)
    q, k = q.to(dtype).requires_grad_(), F.normalize(k, dim=-1).to(dtype).requires_grad_()
    v = torch.randn(2, 3, t, 4, dtype=dtype).requires_grad_()
    beta = (2 * torch.rand(2, 3, t, dtype=wide)).requires_grad_()
    decay = (-strength * torch.rand(2, 3, t, 5, dtype=wide)).requires_grad_()
    return q, k, v, beta, decay, torch.randn(2, 3, 5, 4, dtype=wide).requires_grad_() if continued else None
