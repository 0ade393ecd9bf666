"""Dilated attention as sliding attention on several sequences, against one dense mask."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.ops.attention.dilated_attention import dense_dilated_attention, dilated_attention
from tests.ops.attention.test_sliding_attention import LargestTensor, compared, inputs


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 300),
    steps=st.sampled_from([0, 1, 10, 70]),
    window=st.sampled_from([1, 2, 5, 30, 64, 200]),
    dilation=st.integers(1, 9),
    sharing=st.integers(1, 3),
)
def test_sequences_match_the_dense_mask(n: int, steps: int, window: int, dilation: int, sharing: int) -> None:
    q, k, v = inputs(n, steps * dilation, sharing)
    found, wanted = (attend(q, k, v, window, dilation) for attend in (dilated_attention, dense_dilated_attention))
    compared(found, wanted, q, k, v)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 300),
    window=st.sampled_from([1, 2, 5, 30, 64, 200]),
    dilation=st.integers(1, 9),
    sharing=st.integers(1, 3),
)
def test_bidirectional_sequences_match_the_dense_mask(n: int, window: int, dilation: int, sharing: int) -> None:
    q, k, v = inputs(n, 0, sharing)
    found, wanted = (
        attend(q, k, v, window, dilation, causal=False) for attend in (dilated_attention, dense_dilated_attention)
    )
    compared(found, wanted, q, k, v)


@pytest.mark.parametrize("n", [1, 5, 130])
@pytest.mark.parametrize(("window", "dilation"), [(1, 3), (2, 5), (40, 3), (7, 1)])
def test_missing_keys_are_hidden(window: int, dilation: int, n: int) -> None:
    length = dilation * (window - 1)
    q, k, v = inputs(n, length, 2)
    missing = torch.tensor([length, length // 2])
    found, dense = (
        attend(q, k, v, window, dilation, missing=missing) for attend in (dilated_attention, dense_dilated_attention)
    )
    compared(found, dense, q, k, v)
    for row, left_out in enumerate(missing.tolist()):
        alone = dense_dilated_attention(
            q[row, None], k[row, None, :, left_out:], v[row, None, :, left_out:], window, dilation
        )
        torch.testing.assert_close(found[row, None], alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("causal", [True, False])
def test_dense_mask_matches_its_definition(causal: bool) -> None:
    t = 20
    zeros, values = torch.zeros(1, 1, t, t), torch.eye(t)[None, None]
    weights = dense_dilated_attention(zeros, zeros, values, 3, 4, causal=causal)[0, 0]
    for i in range(t):
        seen = {i, i - 4, i - 8} if causal else {i - 8, i - 4, i, i + 4, i + 8}
        assert set(weights[i].nonzero().flatten().tolist()) == {j for j in seen if 0 <= j < t}


@pytest.mark.parametrize("causal", [True, False])
def test_memory_grows_no_faster_than_the_sequence(causal: bool) -> None:
    largest = {}
    for t in (8192, 32768):
        x = torch.empty(1, 2, t, 16, device="meta", requires_grad=True)
        with LargestTensor() as seen:
            dilated_attention(x, x, x, 32, 4, causal=causal).sum().backward()
        largest[t] = seen.numel
    assert largest[32768] <= 4.2 * largest[8192]
