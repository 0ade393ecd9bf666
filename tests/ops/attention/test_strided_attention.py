"""Strided attention in lines and columns against one dense mask."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.ops.attention.strided_attention import dense_strided_attention, strided_attention
from tests.ops.attention.test_sliding_attention import LargestTensor, compared, inputs


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 200),
    past=st.sampled_from([0, 1, 10, 63, 64, 65, 200]),
    stride=st.one_of(st.integers(1, 12), st.sampled_from([64, 199, 200, 300])),
    sharing=st.integers(1, 3),
)
def test_lines_and_columns_match_the_dense_mask(n: int, past: int, stride: int, sharing: int) -> None:
    q, k, v = inputs(n, past, sharing)
    found, wanted = (attend(q, k, v, stride) for attend in (strided_attention, dense_strided_attention))
    compared(found, wanted, q, k, v)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 200),
    stride=st.one_of(st.integers(1, 12), st.sampled_from([64, 199, 200, 300])),
    sharing=st.integers(1, 3),
)
def test_bidirectional_lines_and_columns_match_the_dense_mask(n: int, stride: int, sharing: int) -> None:
    q, k, v = inputs(n, 0, sharing)
    found, wanted = (attend(q, k, v, stride, causal=False) for attend in (strided_attention, dense_strided_attention))
    compared(found, wanted, q, k, v)


@pytest.mark.parametrize("causal", [True, False])
def test_dense_mask_matches_its_definition(causal: bool) -> None:
    t = 20
    zeros, values = torch.zeros(1, 1, t, t), torch.eye(t)[None, None]
    weights = dense_strided_attention(zeros, zeros, values, 4, causal=causal)[0, 0]
    for i in range(t):
        seen = {j for j in range(t) if abs(i - j) < 4 or (i - j) % 4 == 0}
        assert set(weights[i].nonzero().flatten().tolist()) == {j for j in seen if j <= i or not causal}


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("large", [1e2, 1e4])
def test_large_scores_stay_finite(large: float, causal: bool) -> None:
    q, k, v = (x.detach().float() for x in inputs(100, 0, 1))
    q, k, v = (large * q).requires_grad_(), (large * k).requires_grad_(), v.requires_grad_()
    found, wanted = (attend(q, k, v, 8, causal=causal) for attend in (strided_attention, dense_strided_attention))
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-2)
    assert all(x.isfinite().all() for x in torch.autograd.grad(found.sum(), (q, k, v)))


@pytest.mark.parametrize("causal", [True, False])
def test_memory_grows_with_the_sequence_and_its_lines(causal: bool) -> None:
    # Each query has scores for two or three lines of keys and for its column.
    largest = {}
    for t in (1024, 4096):
        x = torch.empty(1, 2, t, 16, device="meta", requires_grad=True)
        with LargestTensor() as seen:
            strided_attention(x, x, x, 64, causal=causal).sum().backward()
        largest[t] = seen.numel
    assert largest[4096] <= 2 * 4096 * 66 * (3 if not causal else 2)
    assert largest[4096] <= 4.2 * largest[1024]
