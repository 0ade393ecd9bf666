"""Pairs of a query and a block of keys, sorted by block, so that each block processes its queries
in chunks."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F


class BlockPairs(NamedTuple):
    """The layout of p pairs in chunks, in which each of m blocks starts with a new chunk."""

    slots: Int[Tensor, " p"]  # the slot of each pair; -1 for a pair without a block
    pairs: Int[Tensor, " slots"]  # the pair in each slot; -1 in unused slots
    owners: Int[Tensor, " chunks"]  # the block of each chunk; m for unused chunks
    ends: Int[Tensor, " m"]  # one past the last chunk of each block


def block_pairs(blocks: Int[Tensor, " p"], m: int, chunk: int) -> BlockPairs:
    """Sort pairs by block, out of m blocks; -1 is a pair without a block.

    Pairs of the same block keep their order. The largest number of chunks depends only on the
    shapes: each block with pairs wastes less than one chunk.
    """
    (count,), device = blocks.shape, blocks.device
    num_chunks = (count + min(m, count) * (chunk - 1)) // chunk
    num_slots = num_chunks * chunk
    blocks = torch.where(blocks < 0, m, blocks)
    ordered, order = blocks.sort(stable=True)
    counts = torch.zeros(m + 1, dtype=torch.long, device=device).scatter_add(0, blocks, torch.ones_like(blocks))
    ends = ((counts[:-1] + chunk - 1) // chunk).cumsum(0)
    shifts = chunk * F.pad(ends, (1, 0)) - F.pad(counts.cumsum(0)[:-1], (1, 0))
    targets = torch.where(ordered < m, torch.arange(count, device=device) + shifts[ordered], num_slots)
    pairs = torch.full((num_slots + 1,), -1, dtype=torch.long, device=device).scatter(0, targets, order)
    slots = torch.empty_like(blocks).scatter(0, order, torch.where(targets < num_slots, targets, -1))
    owners = torch.searchsorted(ends, torch.arange(num_chunks, device=device), right=True)
    return BlockPairs(slots, pairs[:-1], owners, ends)
