"""Attention with the second-order Taylor polynomial against its dense form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hybridlab.ops.linear.taylor_attention import (
    bidirectional_taylor_attention,
    chunked_taylor_attention,
    dense_taylor_attention,
    num_taylor_features,
    taylor_features,
)


@pytest.mark.parametrize(("d", "features"), [(1, 8), (2, 8), (3, 16), (5, 24), (16, 160)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_features_give_the_polynomial(d: int, features: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 7, d, dtype=torch.float64)
    found = taylor_features(q.to(dtype)), taylor_features(k.to(dtype))
    assert found[0].shape == (7, features)
    assert found[0].dtype == dtype
    assert num_taylor_features(d) == features
    s = q @ k.mT / d**0.5
    tolerance = 1e-12 if dtype == torch.float64 else 0.1
    torch.testing.assert_close(
        found[0].double() @ found[1].double().mT, 1 + s + s**2 / 2, rtol=tolerance, atol=tolerance
    )


@settings(max_examples=30, deadline=None, derandomize=True)
@given(t=st.integers(1, 90), d=st.integers(1, 6), chunk=st.integers(1, 100), split_at=st.integers(0, 90))
def test_chunked_form_in_two_segments_matches_the_dense_form(t: int, d: int, chunk: int, split_at: int) -> None:
    q, k, v = draw(t, d)
    state, outputs = None, []
    for segment in (slice(0, min(split_at, t)), slice(min(split_at, t), t)):
        if segment.start < segment.stop:
            o, state = chunked_taylor_attention(q[:, :, segment], k[:, :, segment], v[:, :, segment], state, chunk)
            outputs.append(o)
    same(torch.cat(outputs, dim=2), dense_taylor_attention(q, k, v, causal=True), q, k, v)
    assert state is not None
    ones = torch.ones_like(v[..., :1])
    torch.testing.assert_close(state, taylor_features(k).mT @ torch.cat([v, ones], dim=-1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [1, 9, 300])
def test_bidirectional_form_matches_the_dense_form(t: int) -> None:
    q, k, v = draw(t, 4)
    same(bidirectional_taylor_attention(q, k, v), dense_taylor_attention(q, k, v, causal=False), q, k, v)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_scores_keep_everything_finite(dtype: torch.dtype) -> None:
    inputs = [x.detach().to(dtype).requires_grad_() for x in draw(700, 16, 100.0)]
    for o in (chunked_taylor_attention(*inputs)[0], bidirectional_taylor_attention(*inputs)):
        assert o.isfinite().all()
        assert all(g.isfinite().all() for g in torch.autograd.grad(o.float().square().sum(), inputs))


def test_long_sequences_stay_exact_in_float32() -> None:
    exact = [x.detach() for x in draw(32768, 4)]
    found, _ = chunked_taylor_attention(*(x.float() for x in exact))
    expected, _ = chunked_taylor_attention(*exact)
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_bfloat16_keeps_the_state_in_float32_and_ignores_autocast() -> None:
    q, k, v = (x.detach().bfloat16() for x in draw(300, 16))
    expected = dense_taylor_attention(q.float(), k.float(), v.float(), causal=True)
    o, state = chunked_taylor_attention(q, k, v)
    with torch.autocast("cpu", torch.float16):
        again, _ = chunked_taylor_attention(q, k, v)
    assert o.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    assert torch.equal(again, o)
    assert (o.float() - expected).norm() < 0.02 * expected.norm()


def same(found: Tensor, expected: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    grad_outputs = torch.randn_like(expected)
    gradients, expected_gradients = (
        torch.autograd.grad(o, inputs, grad_outputs, retain_graph=True) for o in (found, expected)
    )
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-8, atol=1e-8)


def draw(t: int, d: int, size: float = 1.0) -> list[Tensor]:
    torch.manual_seed(t)
    q, k = size * torch.randn(2, 2, 3, t, d, dtype=torch.float64)
    return [each.requires_grad_() for each in (q, k, torch.randn(2, 3, t, 4, dtype=torch.float64))]
