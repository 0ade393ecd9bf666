"""Sliding attention in blocks against one dense mask, and the dense mask against its definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from hybridlab.ops.attention.sliding_attention import dense_sliding_attention, sliding_attention


def compared(found: torch.Tensor, wanted: torch.Tensor, *inputs: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    into = torch.randn_like(wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, into), torch.autograd.grad(wanted, inputs, into), rtol=1e-9, atol=1e-9
    )


def inputs(n: int, past: int, sharing: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(n)
    q = torch.randn(2, 2 * sharing, n, 4, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(2, 2, past + n, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return q, k, v


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 300),
    past=st.sampled_from([0, 1, 10, 63, 64, 65, 200]),
    window=st.one_of(st.integers(1, 130), st.sampled_from([500])),
    global_tokens=st.sampled_from([0, 1, 4, 70]),
    sharing=st.integers(1, 3),
)
def test_blocks_match_the_dense_mask(n: int, past: int, window: int, global_tokens: int, sharing: int) -> None:
    q, k, v = inputs(n, past, sharing)
    found, wanted = (
        attend(q, k, v, window, global_tokens=global_tokens) for attend in (sliding_attention, dense_sliding_attention)
    )
    compared(found, wanted, q, k, v)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 400),
    window=st.one_of(st.integers(1, 130), st.sampled_from([500])),
    global_tokens=st.sampled_from([0, 1, 4, 70]),
    sharing=st.integers(1, 3),
)
def test_bidirectional_blocks_match_the_dense_mask(n: int, window: int, global_tokens: int, sharing: int) -> None:
    q, k, v = inputs(n, 0, sharing)
    found, wanted = (
        attend(q, k, v, window, causal=False, global_tokens=global_tokens)
        for attend in (sliding_attention, dense_sliding_attention)
    )
    compared(found, wanted, q, k, v)


@pytest.mark.parametrize("n", [1, 5, 200])
@pytest.mark.parametrize("window", [2, 11, 80])
def test_missing_keys_are_hidden(window: int, n: int) -> None:
    q, k, v = inputs(n, window - 1, 2)
    missing = torch.tensor([window - 1, window // 2])
    found, dense = (attend(q, k, v, window, missing=missing) for attend in (sliding_attention, dense_sliding_attention))
    compared(found, dense, q, k, v)
    for sequence, left_out in enumerate(missing.tolist()):
        alone = dense_sliding_attention(
            q[sequence, None], k[sequence, None, :, left_out:], v[sequence, None, :, left_out:], window
        )
        torch.testing.assert_close(found[sequence, None], alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("window", "global_tokens"), [(3, 0), (3, 2), (1, 4), (1, 0)])
def test_dense_mask_matches_its_definition(window: int, global_tokens: int, causal: bool) -> None:
    # Equal scores: each token returns the mean of the one-hot values that it sees.
    t = 12
    zeros, values = torch.zeros(1, 1, t, t), torch.eye(t)[None, None]
    weights = dense_sliding_attention(zeros, zeros, values, window, causal=causal, global_tokens=global_tokens)[0, 0]
    for i in range(t):
        for j in range(t):
            either_way = abs(i - j) < window or j < global_tokens or i < global_tokens
            sees = j <= i and (i - j < window or j < global_tokens) if causal else either_way
            assert (weights[i, j] > 0) == sees, (i, j)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("global_tokens", [0, 4])
def test_memory_grows_no_faster_than_the_sequence(global_tokens: int, causal: bool) -> None:
    largest = {}
    for t in (8192, 32768):
        x = torch.empty(1, 2, t, 16, device="meta", requires_grad=True)
        with LargestTensor() as seen:
            # On the meta device attention computes all scores: the global_tokens' own, 4·t, grow
            # with the sequence.
            sliding_attention(x, x, x, 64, causal=causal, global_tokens=global_tokens).sum().backward()
        largest[t] = seen.numel
    assert largest[32768] <= 4.2 * largest[8192]


class LargestTensor(TorchDispatchMode):
    """A mode that records the number of elements of the largest tensor returned by any
    operation."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else (result,):
            if isinstance(each, torch.Tensor):
                self.numel = max(self.numel, each.numel())
        return result
