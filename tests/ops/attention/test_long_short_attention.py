"""Windows and slots: blocks against one dense mask, and slots against their sums."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.ops.attention.long_short_attention import block_slots, dense_long_short_attention, long_short_attention


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 90),
    own=st.integers(0, 29),
    finished=st.integers(0, 3),
    block=st.integers(1, 30),
    rank=st.integers(1, 3),
)
def test_blocks_match_the_dense_mask(n: int, own: int, finished: int, block: int, rank: int) -> None:
    torch.manual_seed(n)
    past = own % block + (block if finished else 0)
    slots = (finished * block + own % block + n) // block * rank
    q = torch.randn(2, 2, n, 4, dtype=torch.float64, requires_grad=True)
    k, v = torch.randn(2, 2, 2, past + n, 4, dtype=torch.float64).requires_grad_().unbind()
    few_k, few_v = torch.randn(2, 2, 2, slots, 4, dtype=torch.float64).requires_grad_().unbind()
    inputs = (q, k, v, few_k, few_v)
    first = max(finished - 1, 0)
    found = long_short_attention(*inputs, block, rank, first)
    wanted = dense_long_short_attention(*inputs, block, rank, first)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    into = torch.randn_like(wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, into, materialize_grads=True),
        torch.autograd.grad(wanted, inputs, into, materialize_grads=True),
        rtol=1e-9,
        atol=1e-9,
    )


def test_a_query_sees_its_window_and_the_slots_of_earlier_blocks() -> None:
    t, block, rank = 13, 3, 2
    zero = torch.zeros(1, 1, t, 1)
    tokens, slots = 2.0 ** torch.arange(t), 2.0 ** torch.arange(t // block * rank)
    few = torch.zeros(1, 1, len(slots), 1)
    for of_tokens, of_slots in ((1, 0), (0, 1)):
        o = long_short_attention(
            zero, zero, of_tokens * tokens.view(1, 1, -1, 1), few, of_slots * slots.view(1, 1, -1, 1), block, rank
        )
        for i in range(t):
            own = i // block
            window = tokens[max(own - 1, 0) * block : i + 1]
            earlier = slots[: own * rank]
            expected = (of_tokens * window.sum() + of_slots * earlier.sum()) / (len(window) + len(earlier))
            assert o[0, 0, i, 0].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("t", [1, 4, 5, 6, 23])
def test_slots_are_means_of_finished_blocks(t: int) -> None:
    block, rank = 5, 2
    x, scores = torch.randn(2, 3, t, 4, dtype=torch.float64), torch.randn(2, 3, t, rank, dtype=torch.float64)
    found = block_slots(x, scores, block)
    assert found.shape == (2, 3, t // block * rank, 4)
    for number in range(t // block):
        own = slice(number * block, (number + 1) * block)
        for slot in range(rank):
            weights = scores[:, :, own, slot].exp()
            expected = (weights[..., None] * x[:, :, own]).sum(2) / weights.sum(-1, keepdim=True)
            torch.testing.assert_close(found[:, :, number * rank + slot], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_scores_stay_finite(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, scores = 30 * torch.randn(1, 2, 300, 8), 100 * torch.randn(1, 2, 300, 2)
    x, scores = x.to(dtype).requires_grad_(), scores.to(dtype).requires_grad_()
    slots = block_slots(x, scores, 16)
    o = long_short_attention(x, x, x, slots, slots, 16, 2)
    gradients = torch.autograd.grad(o.float().square().mean(), (x, scores))
    assert o.dtype == dtype
    assert all(each.isfinite().all() for each in (o, *gradients))
