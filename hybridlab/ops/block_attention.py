"""Causal softmax attention in which each token chooses the blocks of keys that it sees.

Letters: b batch, n queries, that stand at the last n of t keys, h heads, g heads that have keys of their own,
s heads that choose (g divides s, s divides h), c blocks chosen, k width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.precision import accumulation_dtype, autocast_off
from hybridlab.ops.softmax_part import Part, softmax_part

# Queries that chose the same block meet it in chunks of at most so many.
CHUNK = 64


def dense_block_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g t k"],
    v: Float[Tensor, "b g t k"],
    chosen: Int[Tensor, "b s n c"],
    block: int,
    local: int = 1,
    first: bool = False,
) -> Float[Tensor, "b h n k"]:
    """Attend under one (n, t) mask per head: the obvious form, O(n·t).

    A query sees itself and what is before it in its own block and the `local` - 1 before that, in the first block if
    `first`, and the blocks that it chose: each once, all of them before those; -1 chooses nothing.
    """
    with autocast_off(v):
        dtype, keys = accumulation_dtype(v), torch.arange(k.shape[2], device=q.device)
        visible = block_mask(keys[k.shape[2] - q.shape[2] :], keys, chosen, block, local, first)
        visible = visible.repeat_interleave(q.shape[1] // chosen.shape[1], dim=1)
        q, k, v = q.to(dtype), *(x.to(dtype).repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~visible, -torch.inf)
        return (scores.softmax(-1) @ v).to(v.dtype)


def block_mask(
    queries: Int[Tensor, " n"],
    keys: Int[Tensor, " t"],
    chosen: Int[Tensor, "b s n c"],
    block: int,
    local: int = 1,
    first: bool = False,
) -> Bool[Tensor, "b s n t"]:
    """Say which of the keys each query sees, by the positions of both and the blocks that it chose."""
    own = queries[:, None]
    visible = (keys // block > own // block - local) | ((keys < block) & first)
    return (visible | (chosen[..., None] == keys // block).any(-2)) & (keys <= own)


def block_attention(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b g t k"],
    v: Float[Tensor, "b g t k"],
    chosen: Int[Tensor, "b s n c"],
    block: int,
    local: int = 1,
    first: bool = False,
) -> Float[Tensor, "b h n k"]:
    """Give what `dense_block_attention` gives in O((n·c + t)·block) time and memory.

    Blocks that all queries of a block see are matrix products with it. The chosen ones turn the other way round: pairs
    of a query and a block are sorted by the block, and each block meets the queries that chose it, in chunks; so keys
    are gathered once a chunk, not once a query. How many chunks there are at most depends on the shapes alone. Parts
    of a softmax are put together at the end (MoBA, 2502.13189, section 2.3).
    """
    with autocast_off(v):
        (b, h, n, _), dtype = q.shape, v.dtype
        sets, sharing = chosen.shape[1] // k.shape[1], h // chosen.shape[1]
        q = (q * q.shape[-1] ** -0.5).unflatten(1, (k.shape[1], sets, sharing))  # b g s/g h/s n k
        keys, values = _in_blocks(k, block), _in_blocks(v, block)
        parts = [_near(q, keys, values, k.shape[2] - n, local, first)]
        if chosen.shape[3]:
            parts.append(_far(q, keys, values, chosen.unflatten(1, (-1, sets))))
        return _together(parts).reshape(b, h, n, v.shape[-1]).to(dtype)


def _together(parts: list[Part]) -> Float[Tensor, "*b v"]:
    """Divide the sums of all parts, c of them in each, by their totals, on the scale of the greatest score of all."""
    top = torch.stack([tops.amax(-2, keepdim=True) for _, _, tops in parts]).amax(0)
    scales = [(tops - top).exp() for _, _, tops in parts]
    sums, totals = (
        torch.stack([(scale * part[i]).sum(-2) for scale, part in zip(scales, parts, strict=True)]).sum(0)
        for i in (0, 1)
    )
    return sums / totals


def _near(
    q: Float[Tensor, "b g r u n k"],
    keys: Float[Tensor, "b g m l k"],
    values: Float[Tensor, "b g m l k"],
    past: int,
    local: int,
    first: bool,
) -> Part:
    """Attend from each block of queries to the blocks that all of them see: its own, those just before, the first."""
    (r, u, n), (m, block) = q.shape[2:5], keys.shape[2:4]
    start, before = past // block, past % block
    # Padded so that a block of queries is a block of keys.
    q = F.pad(q, (0, 0, before, -(before + n) % block)).unflatten(-2, (-1, block)).movedim(4, 2)  # b g m-start r u l k
    shift = local - 1
    padded = [F.pad(x, (0, 0, 0, 0, shift, 0)) for x in (keys, values)]
    seen = [[x[:, :, start + i : m + i] for i in range(local)] for x in padded]
    positions = torch.arange(m * block, device=q.device).unflatten(0, (m, block))
    shown = [positions[start:] + (i - shift) * block for i in range(local)]
    if first:
        seen = [[x[:, :, :1].expand_as(own[0]), *own] for x, own in zip((keys, values), seen, strict=True)]
        # Where the first block is one of those just before, it is seen there: here it is put behind the row's end.
        doubled = torch.arange(start, m, device=q.device)[:, None] < local
        shown.insert(0, torch.where(doubled, m * block, positions[:1]))
    shown = torch.cat(shown, dim=1)[:, None, :]  # m-start 1 keys: the positions of the keys
    hidden = (shown < 0) | (shown > positions[start:, :, None])
    queries = q.flatten(3, 5)  # heads that share keys are more queries of the same block
    seen_keys, seen_values = (torch.cat(each, dim=3) for each in seen)
    part = softmax_part(queries, seen_keys, seen_values, hidden.repeat(1, r * u, 1))
    part = (x.unflatten(3, (r, u, block)).movedim(2, 4).flatten(4, 5)[..., before : before + n, :] for x in part)
    sums, total, top = (x[..., None, :] for x in part)  # b g r u n 1 k
    return sums, total, top


def _far(
    q: Float[Tensor, "b g r u n k"],
    keys: Float[Tensor, "b g m l k"],
    values: Float[Tensor, "b g m l k"],
    chosen: Int[Tensor, "b g r n c"],
) -> Part:
    """Attend from each query to each of its chosen blocks, block by block."""
    (b, g, r, u, n, _), m, c = q.shape, keys.shape[2], chosen.shape[4]
    blocks, rows = chosen.flatten(2).clamp(min=0), b * g
    chunk = min(CHUNK, blocks.shape[2])
    # Each block that is chosen wastes less than a chunk.
    num_chunks = (blocks.shape[2] + min(m, blocks.shape[2]) * (chunk - 1)) // chunk
    slots, pairs, owners = _slots(blocks, m, chunk, num_chunks)
    row = torch.arange(rows, device=q.device).reshape(b, g, 1)
    queries = q.transpose(3, 4).flatten(0, 3).flatten(1)  # b·g·r·n, u·k
    queries = queries.index_select(0, (pairs // c + row * (r * n)).flatten())
    owners = (owners + row * m).flatten()
    queries = queries.reshape(rows * num_chunks, chunk * u, -1)
    part = softmax_part(queries, *(each.flatten(0, 2).index_select(0, owners) for each in (keys, values)))
    found = (slots + row * (num_chunks * chunk)).flatten()
    sums, total, top = (
        x.reshape(rows * num_chunks * chunk, -1).index_select(0, found).reshape(b, g, r, n, c, u, -1).movedim(5, 3)
        for x in part
    )
    return sums, total, top.masked_fill((chosen < 0)[:, :, :, None, :, :, None], -torch.inf)


def _slots(
    blocks: Int[Tensor, "b g p"], m: int, chunk: int, num_chunks: int
) -> tuple[Int[Tensor, "b g p"], Int[Tensor, "b g num_chunks*chunk"], Int[Tensor, "b g num_chunks"]]:
    """Sort pairs by their block, each block from the start of a chunk of its own.

    Return the slot of each pair, the pair in each slot (any pair in the slots that are left over), and the block of each
    chunk.
    """
    ordered, order = blocks.sort(dim=-1, stable=True)
    counts = blocks.new_zeros(*blocks.shape[:2], m).scatter_add(-1, blocks, torch.ones_like(blocks))
    ends = ((counts + chunk - 1) // chunk).cumsum(-1)  # in chunks
    shifts = chunk * F.pad(ends[..., :-1], (1, 0)) - F.pad(counts.cumsum(-1)[..., :-1], (1, 0))
    slots = torch.arange(blocks.shape[2], device=blocks.device) + shifts.gather(-1, ordered)
    pairs = blocks.new_zeros(*blocks.shape[:2], num_chunks * chunk).scatter(-1, slots, order)
    chunks = torch.arange(num_chunks, device=blocks.device).expand(*blocks.shape[:2], -1).contiguous()
    owners = torch.searchsorted(ends, chunks, right=True).clamp(max=m - 1)
    return torch.zeros_like(blocks).scatter(-1, order, slots), pairs, owners


def _in_blocks(x: Float[Tensor, "b g t k"], block: int) -> Float[Tensor, "b g m l k"]:
    missing = -x.shape[2] % block
    return (F.pad(x, (0, 0, 0, missing)) if missing else x).unflatten(2, (-1, block))
