"""Nyström attention through landmarks against the full t·t matrix."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hybridlab.ops.attention.nystrom_attention import dense_nystrom_attention, nystrom_attention, segment_means


@settings(max_examples=40, deadline=None, derandomize=True)
@given(t=st.integers(1, 120), landmarks=st.integers(1, 40), iterations=st.integers(1, 6))
def test_landmarks_match_the_full_matrix(t: int, landmarks: int, iterations: int) -> None:
    torch.manual_seed(t)
    q, k, v = (torch.randn(2, 3, t, 8, dtype=torch.float64).requires_grad_() for _ in range(3))
    found = nystrom_attention(q, k, v, landmarks, iterations)
    wanted = dense_nystrom_attention(q, k, v, landmarks, iterations)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    into = torch.randn_like(wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, (q, k, v), into),
        torch.autograd.grad(wanted, (q, k, v), into),
        rtol=1e-8,
        atol=1e-8,
    )


def test_segments_are_as_equal_in_length_as_possible() -> None:
    x = torch.randn(1, 2, 23, 3, dtype=torch.float64)
    sizes = [5, 5, 5, 4, 4]
    expected = torch.stack([each.mean(2) for each in x.split(sizes, dim=2)], dim=2)
    torch.testing.assert_close(segment_means(x, 5), expected)


@pytest.mark.parametrize("t", [1, 7, 16])
def test_attention_is_exact_if_tokens_do_not_outnumber_landmarks(t: int) -> None:
    q, k, v = torch.randn(3, 2, 2, t, 8, dtype=torch.float64)
    exact = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(nystrom_attention(q, k, v, 16), exact, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(dense_nystrom_attention(q, k, v, 16), exact, rtol=1e-10, atol=1e-10)


def test_it_approximates_softmax_attention() -> None:
    torch.manual_seed(0)
    # Topics of eight neighbours, which segment means can represent.
    topics = torch.randn(32, 16, dtype=torch.float64).repeat_interleave(8, 0)
    q, k, v = (topics + 0.3 * torch.randn(1, 1, 256, 16, dtype=torch.float64) for _ in range(3))
    exact = F.scaled_dot_product_attention(q, k, v)
    errors = [((nystrom_attention(q, k, v, m) - exact).norm() / exact.norm()).item() for m in (8, 32)]
    uniform = ((v.mean(2, keepdim=True) - exact).norm() / exact.norm()).item()
    assert errors[1] < 0.1 < errors[0] < uniform


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_scores_and_equal_tokens_stay_finite(scale: float, dtype: torch.dtype) -> None:
    row = scale * torch.randn(3, 1, 2, 300, 16, dtype=dtype)
    for q, k, v in (row, row[..., :1, :].expand_as(row)):
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        o = nystrom_attention(*inputs, 32)
        gradients = torch.autograd.grad(o.float().square().mean(), inputs)
        assert o.dtype == dtype
        assert all(each.isfinite().all() for each in (o, *gradients))
