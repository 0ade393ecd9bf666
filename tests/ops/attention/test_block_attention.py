"""Attention to chosen blocks, sorted by block, against one dense mask."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hybridlab.ops.attention.block_attention import block_attention, dense_block_attention


def chosen_blocks(shape: tuple[int, int, int, int], t: int, block: int, local: int, first: bool) -> Tensor:
    """Draw distinct blocks that are not visible anyway, and -1 if there are too few."""
    n, c = shape[2:]
    own = torch.arange(t - n, t)[:, None] // block
    candidates = torch.arange(max(-(-t // block), c))
    scores = torch.rand(*shape[:3], len(candidates))
    best, chosen = scores.masked_fill((candidates > own - local) | ((candidates == 0) & first), -1).topk(c)
    return chosen.masked_fill(best < 0, -1)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 150),
    past=st.sampled_from([0, 1, 7, 16, 50]),
    block=st.sampled_from([1, 5, 8, 64]),
    c=st.integers(0, 4),
    local=st.integers(1, 3),
    first=st.booleans(),
    heads=st.sampled_from([(1, 1, 1), (4, 4, 4), (4, 4, 2), (4, 1, 1), (8, 4, 2)]),
)
def test_sorted_pairs_match_the_dense_mask(
    n: int, past: int, block: int, c: int, local: int, first: bool, heads: tuple[int, int, int]
) -> None:
    torch.manual_seed(n)
    h, s, g = heads
    q = torch.randn(2, h, n, 4, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(2, g, past + n, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    chosen = chosen_blocks((2, s, n, c), past + n, block, local, first)
    found, wanted = (each(q, k, v, chosen, block, local, first) for each in (block_attention, dense_block_attention))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    into = torch.randn_like(wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, (q, k, v), into), torch.autograd.grad(wanted, (q, k, v), into), rtol=1e-9, atol=1e-9
    )


def test_a_block_that_all_choose_and_one_that_none_chooses() -> None:
    q, k, v = torch.randn(3, 1, 2, 300, 8, dtype=torch.float64)
    chosen = torch.full((1, 2, 300, 1), -1)
    chosen[:, :, 64:] = 0
    found, wanted = (each(q, k, v, chosen, 32) for each in (block_attention, dense_block_attention))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [0.0, 1e-20, 1e4])
def test_extreme_scores_stay_finite(size: float) -> None:
    q, k, v = (x.requires_grad_() for x in size * torch.randn(3, 2, 4, 200, 16))
    chosen = chosen_blocks((2, 4, 200, 3), 200, 16, 1, False)
    o = block_attention(q, k, v, chosen, 16)
    torch.testing.assert_close(o, dense_block_attention(q, k, v, chosen, 16), rtol=1e-3, atol=1e-3 * size)
    assert all(x.isfinite().all() for x in (o, *torch.autograd.grad(o.sum(), (q, k, v))))


def test_memory_grows_no_faster_than_the_sequence() -> None:
    def elements(t: int) -> int:
        q = torch.empty(1, 4, t, 16, device="meta", requires_grad=True)
        kept = []

        def keep(x: Tensor) -> Tensor:
            kept.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            block_attention(q, q, q, torch.empty(1, 4, t, 2, dtype=torch.long, device="meta"), 64)
        return sum(kept)

    assert elements(4096) <= 4.2 * elements(1024)
