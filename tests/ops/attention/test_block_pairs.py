"""Pairs sorted into chunks: every pair has its own slot in a chunk of its block."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.ops.attention.block_pairs import block_pairs


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data(), m=st.integers(1, 6), chunk=st.integers(1, 5))
def test_each_pair_is_in_a_chunk_of_its_block(data: st.DataObject, m: int, chunk: int) -> None:
    blocks = data.draw(st.lists(st.integers(-1, m - 1), min_size=1, max_size=40))
    slots, pairs, owners, ends = (each.tolist() for each in block_pairs(torch.tensor(blocks), m, chunk))
    assert len(pairs) == len(owners) * chunk
    assert [slot < 0 for slot in slots] == [block < 0 for block in blocks]
    assert {slot: pair for slot, pair in enumerate(pairs) if pair >= 0} == {
        slot: pair for pair, slot in enumerate(slots) if slot >= 0
    }
    assert all(owners[slot // chunk] == block for slot, block in zip(slots, blocks, strict=True) if block >= 0)
    used = [-(-blocks.count(block) // chunk) for block in range(m)]
    assert owners == [block for block in range(m) for _ in range(used[block])] + [m] * (len(owners) - sum(used))
    assert ends == [sum(used[: block + 1]) for block in range(m)]
    # Pairs of a block keep their order, from the start of its first chunk.
    for block in range(m):
        first = (ends[block] - used[block]) * chunk
        of_block = [pair for pair, each in enumerate(blocks) if each == block]
        assert pairs[first : first + len(of_block)] == of_block
