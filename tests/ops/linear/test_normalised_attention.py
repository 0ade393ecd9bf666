"""Normalised linear attention, and bidirectional linear attention without a normaliser."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hybridlab.ops.linear.bidirectional_linear_attention import (
    bidirectional_linear_attention,
    dense_bidirectional_linear_attention,
)
from hybridlab.ops.linear.normalised_attention import (
    bidirectional_normalised_attention,
    chunked_normalised_attention,
    dense_normalised_attention,
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(t=st.integers(1, 90), chunk=st.integers(1, 100), split_at=st.integers(0, 90))
def test_chunked_form_in_two_segments_matches_the_dense_form(t: int, chunk: int, split_at: int) -> None:
    q, k, v = draw(t)
    state, outputs = None, []
    for segment in (slice(0, min(split_at, t)), slice(min(split_at, t), t)):
        if segment.start < segment.stop:
            o, state = chunked_normalised_attention(
                q[:, :, segment], k[:, :, segment], v[:, :, segment], None, state, chunk
            )
            outputs.append(o)
    same(torch.cat(outputs, dim=2), dense_normalised_attention(q, k, v, causal=True), q, k, v)
    assert state is not None
    ones = torch.ones_like(v[..., :1])
    torch.testing.assert_close(state, k.mT @ torch.cat([v, ones], dim=-1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [1, 2, 100, 256, 257, 700])
def test_bidirectional_form_matches_the_dense_form(t: int) -> None:
    q, k, v = draw(t)
    same(bidirectional_normalised_attention(q, k, v), dense_normalised_attention(q, k, v, causal=False), q, k, v)
    same(bidirectional_linear_attention(q, k, v), dense_bidirectional_linear_attention(q, k, v), q, k, v)


def test_zero_features_give_zeros_and_finite_gradients() -> None:
    q, k, v = draw(80)
    zero = torch.zeros_like(k).requires_grad_()
    for o in (chunked_normalised_attention(q, zero, v)[0], bidirectional_normalised_attention(q, zero, v)):
        assert torch.equal(o, torch.zeros_like(o))
        assert all(g.isfinite().all() for g in torch.autograd.grad(o.sum(), [q, zero, v]))


def test_sums_over_long_sequences_keep_growing_in_half_precision() -> None:
    # In bfloat16, a running sum of ones stops growing at 256.
    ones = torch.ones(1, 1, 4096, 1, dtype=torch.bfloat16)
    assert bidirectional_linear_attention(ones, ones, ones)[0, 0, 0, 0] == 4096
    assert chunked_normalised_attention(ones, ones, ones)[1][0, 0, 0, 1] == 4096


def same(found: Tensor, expected: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    grad_outputs = torch.randn_like(expected)
    gradients, expected_gradients = (
        torch.autograd.grad(o, inputs, grad_outputs, retain_graph=True) for o in (found, expected)
    )
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-8, atol=1e-8)


def draw(t: int) -> list[Tensor]:
    torch.manual_seed(t)
    q, k = torch.rand(2, 2, 3, t, 5, dtype=torch.float64) + 0.1
    return [each.requires_grad_() for each in (q, k, torch.randn(2, 3, t, 4, dtype=torch.float64))]
