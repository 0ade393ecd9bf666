"""Attention on log features: the scale never looks ahead and never overflows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hybridlab.ops.linear.log_feature_attention import (
    bidirectional_log_feature_attention,
    chunked_log_feature_attention,
    dense_log_feature_attention,
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    t=st.integers(1, 80),
    chunk=st.integers(1, 90),
    split_at=st.integers(0, 80),
    spread=st.sampled_from([0.0, 1.0, 10.0]),
    offset=st.sampled_from([-1000.0, 0.0, 300.0]),
)
def test_chunked_form_in_two_segments_matches_the_dense_form(
    t: int, chunk: int, split_at: int, spread: float, offset: float
) -> None:
    log_q, log_k, v = draw(t, spread, offset)
    state, outputs = None, []
    for segment in (slice(0, min(split_at, t)), slice(min(split_at, t), t)):
        if segment.start < segment.stop:
            inputs = (x[:, :, segment] for x in (log_q, log_k, v))
            o, sums, log_scale = chunked_log_feature_attention(*inputs, state, chunk)
            state = sums, log_scale
            outputs.append(o)
    expected = dense_log_feature_attention(log_q, log_k, v, causal=True)
    same(torch.cat(outputs, dim=2), expected, log_q, log_k, v)


@pytest.mark.parametrize("t", [1, 9, 300])
def test_bidirectional_form_matches_the_dense_form(t: int) -> None:
    log_q, log_k, v = draw(t, 3.0, 40.0)
    found = bidirectional_log_feature_attention(log_q, log_k, v)
    same(found, dense_log_feature_attention(log_q, log_k, v, causal=False), log_q, log_k, v)


def test_the_scale_cancels() -> None:
    log_q, log_k, v = draw(50, 1.0, 0.0)
    weights = (log_q.exp() @ log_k.exp().mT).tril()
    plain = weights / weights.sum(-1, keepdim=True) @ v
    for shift in (0.0, 500.0, -500.0):
        found, *_ = chunked_log_feature_attention(log_q + shift, log_k - 2 * shift, v)
        torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("trend", [-1000.0, 0.0, 1000.0])
def test_extreme_log_features_keep_everything_finite(trend: float, dtype: torch.dtype) -> None:
    log_q, log_k, v = (x.detach() for x in draw(300, 100.0, 0.0))
    log_k = log_k + trend * torch.linspace(-1, 1, 300)[:, None]
    inputs = [log_q.float().requires_grad_(), log_k.float().requires_grad_(), v.to(dtype).requires_grad_()]
    o, sums, peak = chunked_log_feature_attention(*inputs)
    for y in (o, bidirectional_log_feature_attention(*inputs)):
        assert y.isfinite().all()
        assert y.abs().max() <= v.abs().max() * 1.02, "a weighted mean of values exceeds them"
        gradients = torch.autograd.grad(y.float().square().sum(), inputs, retain_graph=True)
        assert all(each.isfinite().all() for each in gradients)
    assert sums.isfinite().all()
    assert peak.isfinite().all()


def test_a_larger_key_does_not_change_earlier_outputs() -> None:
    log_q, log_k, v = (x.detach() for x in draw(120, 2.0, 0.0))
    other = log_k.clone()
    other[:, :, 70:] += 1000.0
    moved = (
        chunked_log_feature_attention(log_q, other, v)[0] - chunked_log_feature_attention(log_q, log_k, v)[0]
    ).abs()
    assert moved[:, :, :70].max() < 1e-12
    assert moved[:, :, 70:].max() > 0.1


def test_long_sequences_stay_exact_in_float32() -> None:
    exact = [x.detach() for x in draw(32768, 3.0, 0.0)]
    found, *_ = chunked_log_feature_attention(*(x.float() for x in exact))
    expected, *_ = chunked_log_feature_attention(*exact)
    assert (found - expected).norm() < 1e-5 * expected.norm()


def same(found: Tensor, expected: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    grad_outputs = torch.randn_like(expected)
    gradients, expected_gradients = (
        torch.autograd.grad(o, inputs, grad_outputs, retain_graph=True) for o in (found, expected)
    )
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-8, atol=1e-8)


def draw(t: int, spread: float, offset: float) -> list[Tensor]:
    torch.manual_seed(t)
    logarithms = spread * torch.randn(2, 2, 2, t, 6, dtype=torch.float64) + offset
    return [each.requires_grad_() for each in (*logarithms, torch.randn(2, 2, t, 3, dtype=torch.float64))]
