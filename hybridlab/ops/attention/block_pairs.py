"""Pairs of a query and a block of keys, sorted by the block, so that each block meets its queries in chunks."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F


class BlockPairs(NamedTuple):
    """Where p pairs stand when each of m blocks begins with a chunk of its own."""

    slots: Int[Tensor, " p"]  # of each pair; -1 for one without a block
    pairs: Int[Tensor, " chunks*chunk"]  # in each slot; -1 in those left over
    owners: Int[Tensor, " chunks"]  # the block of each chunk; m for those left over
    ends: Int[Tensor, " m"]  # the chunk behind the last of each block


def block_pairs(blocks: Int[Tensor, " p"], m: int, chunk: int) -> BlockPairs:
    """Sort pairs by their block, of which there are m; a pair may have none, -1.

    Pairs of a block keep their order. How many chunks there are at most depends on the shapes alone: a block that is
    met at all wastes less than one.
    """
    (count,), device = blocks.shape, blocks.device
    num_chunks = (count + min(m, count) * (chunk - 1)) // chunk
    left_over = num_chunks * chunk
    blocks = torch.where(blocks < 0, m, blocks)
    ordered, order = blocks.sort(stable=True)
    counts = torch.zeros(m + 1, dtype=torch.long, device=device).scatter_add(0, blocks, torch.ones_like(blocks))
    ends = ((counts[:-1] + chunk - 1) // chunk).cumsum(0)
    shifts = chunk * F.pad(ends, (1, 0)) - F.pad(counts.cumsum(0)[:-1], (1, 0))
    places = torch.where(ordered < m, torch.arange(count, device=device) + shifts[ordered], left_over)
    pairs = torch.full((left_over + 1,), -1, dtype=torch.long, device=device).scatter(0, places, order)
    slots = torch.empty_like(blocks).scatter(0, order, torch.where(places < left_over, places, -1))
    owners = torch.searchsorted(ends, torch.arange(num_chunks, device=device), right=True)
    return BlockPairs(slots, pairs[:-1], owners, ends)
