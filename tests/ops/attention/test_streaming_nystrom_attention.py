"""Streaming Nyström attention: blocks and chunks against all weights, and against softmax
attention."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.attention import streaming_nystrom_attention
from hybridlab.ops.attention.streaming_nystrom_attention import (
    FLOOR,
    NystromPast,
    dense_streaming_nystrom,
    extend_streaming_nystrom,
    streaming_nystrom,
)
from tests.ops.attention.test_sliding_attention import LargestTensor

RIDGE = 1e-3


@settings(max_examples=40, deadline=None, derandomize=True)
@given(t=st.integers(1, 80), block=st.integers(1, 20), landmarks=st.integers(1, 12))
def test_blocks_match_the_dense_weights(t: int, block: int, landmarks: int) -> None:
    q, k, v = draw(t)
    found = streaming_nystrom(q, k, v, block, landmarks, RIDGE)
    wanted = dense_streaming_nystrom(q, k, v, block, landmarks, RIDGE)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    into = torch.randn_like(wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, (q, k, v), into),
        torch.autograd.grad(wanted, (q, k, v), into),
        rtol=1e-7,
        atol=1e-7,
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5), block=st.integers(1, 9), landmarks=st.integers(1, 9))
def test_chunks_match_the_whole_sequence(sizes: list[int], block: int, landmarks: int) -> None:
    q, k, v = draw(sum(sizes))
    past, outputs = nothing(2, block, landmarks), []
    for chunk in zip(*(x.split(sizes, dim=2) for x in (q, k, v)), strict=True):
        o, past = extend_streaming_nystrom(*chunk, past, RIDGE)
        outputs.append(o)
    found = torch.cat(outputs, dim=2)
    wanted = dense_streaming_nystrom(q, k, v, block, landmarks, RIDGE)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    into = torch.randn_like(wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, (q, k, v), into),
        torch.autograd.grad(wanted, (q, k, v), into),
        rtol=1e-7,
        atol=1e-7,
    )


@torch.no_grad()
def test_sequences_can_be_at_different_positions() -> None:
    block, landmarks = 4, 5
    lengths, pasts = (3, 14, 25), []
    sequences = [draw(length + 7, batch=1) for length in lengths]
    for length, sequence in zip(lengths, sequences, strict=True):
        _, past = extend_streaming_nystrom(*(x[:, :, :length] for x in sequence), nothing(1, block, landmarks), RIDGE)
        pasts.append(past)
    together = NystromPast(*(torch.cat(parts) for parts in zip(*pasts, strict=True)))
    news = (
        torch.cat([x[:, :, length:] for x, length in zip(each, lengths, strict=True)])
        for each in zip(*sequences, strict=True)
    )
    o, _ = extend_streaming_nystrom(*news, together, RIDGE)
    for sequence, found, length in zip(sequences, o, lengths, strict=True):
        expected = dense_streaming_nystrom(*sequence, block, landmarks, RIDGE)[0, :, length:]
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_it_is_softmax_attention_if_every_key_is_a_landmark() -> None:
    q, k, v = draw(40)
    found = streaming_nystrom(q, k, v, block=1, landmarks=40, ridge=1e-12)
    exact = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6)


def test_two_blocks_are_softmax_attention() -> None:
    q, k, v = draw(32)
    exact = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(streaming_nystrom(q, k, v, 16, 4, RIDGE), exact, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_it_approximates_softmax_attention_better_than_its_parts() -> None:
    t, block, width = 512, 16, 32
    torch.manual_seed(0)
    gaussian = [F.rms_norm(torch.randn(1, 1, t, width, dtype=torch.float64), (width,)) for _ in range(3)]
    topics = torch.randn(8, width, dtype=torch.float64)
    picked = topics.repeat_interleave(block, 0).repeat(t // block // 8, 1)[None, None]
    asked = topics[torch.randint(8, (t,))][None, None]
    clustered = [F.rms_norm(x + 0.5 * torch.randn_like(x), (width,)) for x in (asked, picked, picked)]
    errors = [
        [error(o, x) for o in (streaming_nystrom(*x, block, 32, RIDGE), means(*x), window(*x, block))]
        for x in (gaussian, clustered)
    ]
    # Independent keys have means close to zero, which leaves little to gain over the mean of all
    # values.
    assert errors[0][0] < errors[0][1] < errors[0][2]
    assert errors[1][0] < 0.1 < errors[1][1] < errors[1][2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("alike", [False, True])
def test_the_largest_value_bounds_the_output(dtype: torch.dtype, alike: bool) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 2000, 16)
    q, k = (F.rms_norm(x[:, :, :1].expand_as(x) if alike else x, (16,)) for x in (q, k))
    inputs = [x.to(dtype).requires_grad_() for x in (q, -q if alike else k, v.sign())]
    o = streaming_nystrom(*inputs, 8, 64, RIDGE)
    gradients = torch.autograd.grad(o.float().square().mean(), inputs)
    assert o.dtype == dtype
    assert o.abs().max() <= 1 / FLOOR
    assert all(each.isfinite().all() for each in (o, *gradients))


@torch.no_grad()
def test_negative_far_mass_keeps_the_output_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two similar landmarks and a hundred keys on one side of them: a query on the other side gives
    # these negative weight.
    torch.manual_seed(0)
    first, second, later, q = torch.randn(4, 400, 1, 1, 4, dtype=torch.float64)
    k = torch.cat([first, first + 0.3 * second, later.expand(-1, -1, 100, -1)], dim=2)
    q, k = (F.rms_norm(x, (4,)) for x in (q.expand_as(k), k))
    v = torch.randn(400, 1, 102, 4, dtype=torch.float64)
    found = streaming_nystrom(q, k, v, 1, 2, RIDGE)
    torch.testing.assert_close(found, dense_streaming_nystrom(q, k, v, 1, 2, RIDGE), rtol=1e-9, atol=1e-9)
    assert found.abs().max() <= v.abs().max() / FLOOR
    monkeypatch.setattr(streaming_nystrom_attention, "FLOOR", 0.0)
    raised = (streaming_nystrom(q, k, v, 1, 2, RIDGE) - found).abs().amax((1, 2, 3)) > 1e-6
    assert 0 < raised.sum() < 100


def test_memory_grows_no_faster_than_the_sequence() -> None:
    largest = {}
    for t in (1024, 4096):
        x = torch.empty(1, 2, t, 16, device="meta", requires_grad=True)
        with LargestTensor() as seen:
            streaming_nystrom(x, x, x, 32, 16, RIDGE).sum().backward()
        largest[t] = seen.numel
    assert largest[4096] <= 4.2 * largest[1024]


def test_bfloat16_ignores_autocast() -> None:
    q, k, v = (x.detach().to(torch.bfloat16) for x in draw(200))
    exact = dense_streaming_nystrom(q.double(), k.double(), v.double(), 16, 8, RIDGE)
    o = streaming_nystrom(q, k, v, 16, 8, RIDGE)
    with torch.autocast("cpu", torch.float16):
        again = streaming_nystrom(q, k, v, 16, 8, RIDGE)
    assert torch.equal(o, again)
    assert (o.double() - exact).norm() < 0.02 * exact.norm()


def draw(t: int, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(t)
    q, k, v = (torch.randn(batch, 2, t, 8, dtype=torch.float64) for _ in range(3))
    q, k = (F.rms_norm(x, (8,)) for x in (q, k))
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


def nothing(batch: int, block: int, landmarks: int) -> NystromPast:
    window = torch.zeros(batch, 2, 2 * block - 1, 8, dtype=torch.float64)
    few, sums = (torch.zeros(batch, 2, landmarks, n, dtype=torch.float64) for n in (8, 10))
    return NystromPast(window, window, torch.zeros(batch, 1, dtype=torch.long), few, sums)


def means(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return v.cumsum(2) / torch.arange(1, v.shape[2] + 1)[:, None]


def window(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    blocks = torch.arange(q.shape[2]) // block
    near = (blocks[:, None] - blocks < 2) & torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=near)


def error(o: Tensor, inputs: list[Tensor]) -> float:
    """Return the relative error of the second half of the sequence."""
    exact = F.scaled_dot_product_attention(*inputs, is_causal=True)
    half = exact.shape[2] // 2
    return ((o - exact)[:, :, half:].norm() / exact[:, :, half:].norm()).item()
