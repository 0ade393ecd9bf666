"""Attention to compressed blocks and the choice by its weights, against dense forms."""

import pytest
import torch
from torch import Tensor

from hybridlab.ops.attention import compressed_attention as op
from hybridlab.ops.attention.compressed_attention import (
    choice_by_importance,
    common_strides,
    compressed_attention,
    dense_compressed_attention,
)

SIZES = [(8, 4, 8), (8, 8, 8), (4, 2, 16), (6, 2, 8)]


def inputs(past: int, n: int, length: int, stride: int) -> list[Tensor]:
    m = max((past + n - length) // stride + 1, 0)
    torch.manual_seed(past + n)
    shapes = [(2, 4, n, 6), (2, 2, m, 6), (2, 2, m, 6)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("chunk", [7, 2048])
@pytest.mark.parametrize("past", [0, 3, 40])
@pytest.mark.parametrize(("length", "stride", "_block"), SIZES)
@pytest.mark.parametrize("n", [1, 3, 50])
def test_chunks_match_the_dense_form(
    monkeypatch: pytest.MonkeyPatch, n: int, length: int, stride: int, _block: int, past: int, chunk: int
) -> None:
    monkeypatch.setattr(op, "MIN_CHUNK", chunk)
    q, k, v = inputs(past, n, length, stride)
    found = compressed_attention(q, k, v, past, length, stride)
    wanted, weights = dense_compressed_attention(q, k, v, past, length, stride)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    empty = torch.arange(past, past + n) < length - 1
    assert not found[:, :, empty].any()
    assert not weights[:, :, empty].any()
    if not empty.all():
        into = torch.randn_like(wanted)
        torch.testing.assert_close(
            torch.autograd.grad(found, (q, k, v), into),
            torch.autograd.grad(wanted, (q, k, v), into),
            rtol=1e-9,
            atol=1e-9,
        )


@pytest.mark.parametrize("chunk", [7, 2048])
@pytest.mark.parametrize("past", [0, 3, 40])
@pytest.mark.parametrize(("length", "stride", "block"), SIZES)
@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_blocks_are_chosen_by_the_weights(
    monkeypatch: pytest.MonkeyPatch, count: int, length: int, stride: int, block: int, past: int, chunk: int
) -> None:
    monkeypatch.setattr(op, "MIN_CHUNK", chunk)
    n = 70
    q, k, v = inputs(past, n, length, stride)
    chosen = choice_by_importance(q, k, past, length, stride, block, 2, count)
    assert chosen.shape == (2, 2, n, count)
    weights = dense_compressed_attention(q, k, v, past, length, stride)[1].unflatten(1, (2, 2)).sum(2)
    for row in range(2):
        for group in range(2):
            for i in range(n):
                importance = {
                    j: sum(
                        # The double sum of the paper (equation 9), with indices from 0.
                        weights[row, group, i, at].item()
                        for a in range(block // stride)
                        for b in range(length // stride)
                        if 0 <= (at := (j + 1) * block // stride - 1 - a - b) < k.shape[2]
                    )
                    for j in range(1, (past + i) // block - 1)
                }
                best = sorted(importance, key=lambda j: -importance[j])[:count]
                assert chosen[row, group, i].tolist() == best + [-1] * (count - len(best))


def test_common_strides() -> None:
    assert common_strides(8, 2, 32, 16, 64).T.tolist() == [[2, 2, 2, 1, 0, 0, 0, 0], [0, 0, 0, 1, 2, 2, 2, 1]]
    assert torch.equal(common_strides(5, 5, 8, 8, 8), torch.eye(5, dtype=torch.long))


@pytest.mark.parametrize("size", [0.0, 1e4])
def test_extreme_scores_stay_finite(size: float) -> None:
    q, k, v = (size * x.detach().float() for x in inputs(0, 90, 8, 4))
    q.requires_grad_()
    o = compressed_attention(q, k, v, 0, 8, 4)
    assert o.isfinite().all()
    assert torch.autograd.grad(o.sum(), q)[0].isfinite().all()
