"""Causal softmax attention in which each token chooses the blocks of keys that it sees.

Letters: b batch, n queries at the last n of t key positions, h heads, g key heads, s heads that
choose (g divides s, s divides h), c blocks chosen, k width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.attention.block_pairs import block_pairs
from hybridlab.ops.attention.softmax_part import Part, softmax_part
from hybridlab.ops.kernels.dispatch import KERNEL_BLOCK, can_use_block_kernel
from hybridlab.ops.kernels.launch import compiled_at_once
from hybridlab.ops.precision import accumulation_dtype, autocast_off

# The most queries per chunk of those that chose the same block.
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

    A query sees itself, the tokens before it in its own block and in the `local` - 1 blocks before
    that, the first block if `first`, and its chosen blocks, which are distinct and lie before all
    of these; -1 chooses nothing.
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
    """Return which keys each query sees, given the positions of both and the blocks that it
    chose."""
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
    """Compute `dense_block_attention` in O((n·c + t)·block) time and memory.

    Blocks that all queries of a block see are multiplied with that block. For chosen blocks the
    loop is inverted: pairs of a query and a block are sorted by block, and each block processes the
    queries that chose it, in chunks; so keys are gathered once per chunk, not once per query. The
    largest number of chunks depends only on the shapes. The parts of the softmax are merged at the
    end (MoBA, 2502.13189, section 2.3). GPU kernels treat all visible blocks as pairs.
    """
    with autocast_off(v):
        (b, h, n, width), dtype = q.shape, v.dtype
        if can_use_block_kernel(v, width, v.shape[-1], block, h // chosen.shape[1]):
            return _by_kernels(q, k, v, _list_blocks(chosen, k.shape[2], block, local, first))
        sets, sharing = chosen.shape[1] // k.shape[1], h // chosen.shape[1]
        q = (q * q.shape[-1] ** -0.5).unflatten(1, (k.shape[1], sets, sharing))  # b g s/g h/s n k
        keys, values = _in_blocks(k, block), _in_blocks(v, block)
        parts = [_near(q, keys, values, k.shape[2] - n, local, first)]
        if chosen.shape[3]:
            parts.append(_far(q, keys, values, chosen.unflatten(1, (-1, sets))))
        return _merge(parts).reshape(b, h, n, v.shape[-1]).to(dtype)


def _merge(parts: list[Part]) -> Float[Tensor, "*b v"]:
    """Merge softmax parts, c in each: divide their summed values by their summed weights, scaled by
    the greatest score."""
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
    """Attend from each block of queries to the blocks that all its queries see: its own, those just
    before, the first."""
    (r, u, n), (m, block) = q.shape[2:5], keys.shape[2:4]
    start, padding = past // block, past % block
    # Padded so that query blocks coincide with key blocks.
    q = (
        F.pad(q, (0, 0, padding, -(padding + n) % block)).unflatten(-2, (-1, block)).movedim(4, 2)
    )  # b g m-start r u l k
    shift = local - 1
    padded = [F.pad(x, (0, 0, 0, 0, shift, 0)) for x in (keys, values)]
    seen = [[x[:, :, start + i : m + i] for i in range(local)] for x in padded]
    positions = torch.arange(m * block, device=q.device).unflatten(0, (m, block))
    key_positions = [positions[start:] + (i - shift) * block for i in range(local)]
    if first:
        seen = [[x[:, :, :1].expand_as(own[0]), *own] for x, own in zip((keys, values), seen, strict=True)]
        # If the first block is among those just before, it is visible there: this copy moves beyond
        # the sequence.
        duplicate = torch.arange(start, m, device=q.device)[:, None] < local
        key_positions.insert(0, torch.where(duplicate, m * block, positions[:1]))
    key_positions = torch.cat(key_positions, dim=1)[:, None, :]  # m-start 1 keys: the positions of the keys
    hidden = (key_positions < 0) | (key_positions > positions[start:, :, None])
    queries = q.flatten(3, 5)  # heads that share keys are more queries of the same block
    seen_keys, seen_values = (torch.cat(each, dim=3) for each in seen)
    part = softmax_part(queries, seen_keys, seen_values, hidden.repeat(1, r * u, 1))
    part = (x.unflatten(3, (r, u, block)).movedim(2, 4).flatten(4, 5)[..., padding : padding + n, :] for x in part)
    sums, total, top = (x[..., None, :] for x in part)  # b g r u n 1 k
    return sums, total, top


def _far(
    q: Float[Tensor, "b g r u n k"],
    keys: Float[Tensor, "b g m l k"],
    values: Float[Tensor, "b g m l k"],
    chosen: Int[Tensor, "b g r n c"],
) -> Part:
    """Attend from each query to each of its chosen blocks, one block at a time."""
    (b, g, r, u, n, _), m, c = q.shape, keys.shape[2], chosen.shape[4]
    blocks = _number_blocks(chosen, m)
    chunk = min(CHUNK, r * n * c)
    slots, pairs, owners, _ = block_pairs(blocks, b * g * m, chunk)
    queries = q.transpose(3, 4).flatten(0, 3).flatten(1)  # b·g·r·n, u·k
    queries = queries.index_select(0, pairs.clamp(min=0) // c).reshape(len(owners), chunk * u, -1)
    owners = owners.clamp(max=b * g * m - 1)
    part = softmax_part(queries, *(each.flatten(0, 2).index_select(0, owners) for each in (keys, values)))
    slots = slots.clamp(min=0)
    sums, total, top = (
        x.reshape(len(pairs), -1).index_select(0, slots).reshape(b, g, r, n, c, u, -1).movedim(5, 3) for x in part
    )
    return sums, total, top.masked_fill((chosen < 0)[:, :, :, None, :, :, None], -torch.inf)


def _list_blocks(
    chosen: Int[Tensor, "b s n c"], t: int, block: int, local: int, first: bool
) -> Int[Tensor, "b s n listed"]:
    """List all blocks that each query sees, split into blocks of the kernels' length, with -1 in
    unused entries."""
    queries = torch.arange(t - chosen.shape[2], t, device=chosen.device)[:, None]
    own = queries // block
    latest = own - torch.arange(local, device=chosen.device)
    visible = torch.where(latest < 0, -1, latest)  # clamp here breaks the compiler of PyTorch 2.11
    if first:
        visible = torch.cat([visible, torch.where(own < local, -1, 0)], dim=1)
    blocks = torch.cat([visible.expand(*chosen.shape[:2], -1, -1), chosen], dim=-1)[..., None]
    splits = block // KERNEL_BLOCK
    blocks = torch.where(blocks < 0, -1, blocks * splits + torch.arange(splits, device=chosen.device)).flatten(-2)
    return torch.where(blocks <= queries // KERNEL_BLOCK, blocks, -1)


def _number_blocks(blocks: Int[Tensor, "b g r n c"], m: int) -> Int[Tensor, " b*g*r*n*c"]:
    """Number the blocks of all sequences of keys consecutively, m in each; -1 stays."""
    sequences = torch.arange(blocks.shape[0] * blocks.shape[1], device=blocks.device).view(*blocks.shape[:2], 1, 1, 1)
    return torch.where(blocks < 0, -1, blocks + sequences * m).flatten()


@compiled_at_once
def _by_kernels(q: Tensor, k: Tensor, v: Tensor, listed: Int[Tensor, "b s n listed"]) -> Tensor:
    from hybridlab.ops.kernels.block_attention import attend, chunk_length

    (b, h), (g, t), s = q.shape[:2], k.shape[1:3], listed.shape[1]
    sets, sharing, m = s // g, h // s, -(-t // KERNEL_BLOCK)
    pairs = block_pairs(_number_blocks(listed.unflatten(1, (g, sets)), m), b * g * m, chunk_length(sharing))
    queries = q.to(v.dtype).unflatten(1, (g, sets, sharing)).transpose(3, 4)  # b g s/g n h/s k
    o, _ = attend(queries.flatten(0, 2), k.to(v.dtype).flatten(0, 1), v.flatten(0, 1), *pairs)
    return o.unflatten(0, (b, s)).transpose(2, 3).flatten(1, 2)


def _in_blocks(x: Float[Tensor, "b g t k"], block: int) -> Float[Tensor, "b g m l k"]:
    missing = -x.shape[2] % block
    return (F.pad(x, (0, 0, 0, missing)) if missing else x).unflatten(2, (-1, block))
