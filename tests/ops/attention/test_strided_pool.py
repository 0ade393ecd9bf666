"""Sums over overlapping blocks, stride by stride, against the definition."""

import pytest
import torch

from hybridlab.ops.attention.strided_pool import direct_strided_pool, strided_pool


@pytest.mark.parametrize(("length", "stride"), [(1, 1), (4, 4), (4, 2), (6, 2), (8, 1)])
@pytest.mark.parametrize("t", [8, 9, 11, 40])
def test_strides_match_the_definition(t: int, length: int, stride: int) -> None:
    x = torch.randn(2, 3, t, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(length, 5, dtype=torch.float64, requires_grad=True)
    found, wanted = strided_pool(x, weight, stride), direct_strided_pool(x, weight, stride)
    assert wanted.shape == (2, 3, (t - length) // stride + 1, 5)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    into = torch.randn_like(wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, (x, weight), into), torch.autograd.grad(wanted, (x, weight), into)
    )


@pytest.mark.parametrize("t", [0, 1, 3])
def test_there_is_no_sum_without_a_full_block(t: int) -> None:
    assert strided_pool(torch.randn(2, 3, t, 5), torch.randn(4, 5), 2).shape == (2, 3, 0, 5)
