"""Attention within clusters, sorted, against one dense mask."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hybridlab.ops.attention.routed_attention import dense_routed_attention, routed_attention


def inputs(n: int, past: int, clusters: int, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor]:
    torch.manual_seed(n + past)
    shapes = [(2, 3, n, 6), (2, 3, past + n, 6), (2, 3, past + n, 6), (2, 3, past + n)]
    tensors = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    return tensors, torch.randint(0, clusters, (2, 3, past + n))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 300),
    past=st.sampled_from([0, 1, 70, 200]),
    clusters=st.sampled_from([1, 2, 5, 50]),
    window=st.sampled_from([1, 2, 9, 64, 65, 100]),
)
def test_sorting_matches_the_dense_mask(n: int, past: int, clusters: int, window: int) -> None:
    tensors, numbers = inputs(n, past, clusters)
    numbers[..., : past // 2] = -1
    q, k, v, weights = tensors
    found, wanted = (each(q, k, v, weights, numbers, window) for each in (routed_attention, dense_routed_attention))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    into = torch.randn_like(wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, tensors, into), torch.autograd.grad(wanted, tensors, into), rtol=1e-8, atol=1e-8
    )


def test_dense_mask_is_the_definition() -> None:
    (q, k, v, log_weights), numbers = inputs(40, 10, 3)
    found = dense_routed_attention(q, k, v, log_weights, numbers, 4)
    for i in range(40):
        members = [j for j in range(10 + i + 1) if numbers[1, 2, j] == numbers[1, 2, 10 + i]][-4:]
        weights = torch.stack(
            [(q[1, 2, i] @ k[1, 2, j] / math.sqrt(6)).exp() * log_weights[1, 2, j].exp() for j in members]
        )
        torch.testing.assert_close(found[1, 2, i], (weights / weights.sum()) @ v[1, 2, members])


@pytest.mark.parametrize("size", [0.0, 1e3])
def test_extreme_scores_stay_finite(size: float) -> None:
    tensors, numbers = inputs(200, 0, 4, torch.float32)
    q, k, v, weights = tensors = [(size * x.detach()).requires_grad_() for x in tensors]
    o = routed_attention(q, k, v, weights, numbers, 16)
    assert o.isfinite().all()
    assert all(x.isfinite().all() for x in torch.autograd.grad(o.sum(), tensors))
