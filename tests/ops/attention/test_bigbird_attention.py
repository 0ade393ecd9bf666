"""BigBird attention: gathered blocks against one dense mask."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.ops.attention import bigbird_attention as bigbird
from hybridlab.ops.attention.bigbird_attention import bigbird_attention, dense_bigbird_attention
from tests.ops.attention.test_sliding_attention import LargestTensor, compared, inputs


def choice(heads: int, t: int, start: int, block: int, near: int, first: int, num: int, causal: bool) -> torch.Tensor:
    """Choose whole blocks at random, block by block."""
    rows = []
    for _ in range(heads):
        for own in range(start, -(-t // block)):
            end = own - near + 1 if causal else t // block
            allowed = [m for m in range(first, end) if abs(m - own) >= near]
            order = torch.randperm(len(allowed)).tolist()[:num]
            rows.append(([allowed[i] for i in order] + [-1] * num)[:num])
    return torch.tensor(rows).reshape(heads, -1, num)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 150),
    past=st.sampled_from([0, 1, 10, 63, 64, 65, 150]),
    block=st.integers(1, 30),
    near=st.integers(1, 3),
    first=st.integers(1, 3),
    num=st.integers(1, 3),
    sharing=st.integers(1, 3),
)
def test_gathered_blocks_match_the_dense_mask(
    n: int, past: int, block: int, near: int, first: int, num: int, sharing: int
) -> None:
    q, k, v = inputs(n, past, sharing)
    chosen = choice(2 * sharing, n + past, past // block, block, near, first, num, True)
    found, wanted = (
        attend(q, k, v, chosen, block, near, first) for attend in (bigbird_attention, dense_bigbird_attention)
    )
    compared(found, wanted, q, k, v)


@pytest.mark.parametrize(("n", "past"), [(150, 0), (70, 65), (1, 150), (10, 3)])
@pytest.mark.parametrize("near", [1, 3])
@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize("sharing", [1, 3])
def test_listed_blocks_match_the_dense_mask(
    n: int, past: int, near: int, first: int, sharing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a GPU, except that attention to listed blocks runs in its PyTorch form.
    monkeypatch.setattr(bigbird, "can_use_block_kernel", lambda *_: True)
    torch.manual_seed(0)
    q, k, v = inputs(n, past, sharing)
    chosen = choice(2 * sharing, n + past, past // 9, 9, near, first, 2, True)
    found, wanted = (attend(q, k, v, chosen, 9, near, first) for attend in (bigbird_attention, dense_bigbird_attention))
    compared(found, wanted, q, k, v)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 150),
    block=st.integers(1, 30),
    near=st.integers(1, 3),
    first=st.integers(1, 3),
    num=st.integers(1, 3),
    sharing=st.integers(1, 3),
)
def test_bidirectional_gathered_blocks_match_the_dense_mask(
    n: int, block: int, near: int, first: int, num: int, sharing: int
) -> None:
    q, k, v = inputs(n, 0, sharing)
    chosen = choice(2 * sharing, n, 0, block, near, first, num, False)
    found, wanted = (
        attend(q, k, v, chosen, block, near, first, causal=False)
        for attend in (bigbird_attention, dense_bigbird_attention)
    )
    compared(found, wanted, q, k, v)


@pytest.mark.parametrize("causal", [True, False])
def test_memory_grows_no_faster_than_the_sequence(causal: bool) -> None:
    largest = {}
    for t in (8192, 32768):
        x = torch.empty(1, 2, t, 16, device="meta", requires_grad=True)
        chosen = torch.zeros(2, t // 32, 2, dtype=torch.long, device="meta")
        with LargestTensor() as seen:
            bigbird_attention(x, x, x, chosen, 32, 2, 1, causal=causal).sum().backward()
        largest[t] = seen.numel
    assert largest[32768] <= 4.2 * largest[8192]
