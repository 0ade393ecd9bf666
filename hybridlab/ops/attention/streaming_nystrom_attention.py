"""Causal attention, exact for the latest two blocks and through landmarks for all before them.

With blocks of c tokens, landmark i is the mean key of block i, for the first m blocks. When a block
leaves the window, it is summed into the features (`landmark_features`) of the landmarks so far, its
own included: later tokens do not change these sums, and the block itself is dropped. A query reads
the sums and the exact weights exp(q·k / √k) of its window, its own block and the one before, under
one normaliser. Exponents are not shifted: a maximum over keys would look ahead or have to be
carried along. The caller bounds queries and keys instead.

Features can be negative, and so can the total weight of far tokens. This weight is at least FLOOR
times the sum of its terms' absolute values, which bounds the output by the largest value over
FLOOR.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.attention.landmark_features import landmark_features, landmark_whitening
from hybridlab.ops.linear.prefix_sum import decayed_prefix_sum
from hybridlab.ops.precision import accumulation_dtype, autocast_off

FLOOR = 0.05


class NystromPast(NamedTuple):
    """The state after the tokens so far, for blocks of c tokens and m landmarks.

    `keys` and `values` are the last 2c-1. `landmarks` belong to the blocks that left the window,
    zeros for blocks to come; `sums` are Σ φ(k) [v, 1]ᵀ over these blocks and, as the last column, Σ
    |φ(k)|.
    """

    keys: Float[Tensor, "b h 2*c-1 k"]
    values: Float[Tensor, "b h 2*c-1 v"]
    position: Int[Tensor, "b 1"]
    landmarks: Float[Tensor, "b h m k"]
    sums: Float[Tensor, "b h m v+2"]


def dense_streaming_nystrom(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    block: int,
    landmarks: int,
    ridge: float,
) -> Float[Tensor, "b h t v"]:
    """Compute the weight of every key for every query: the definition of the op, O(t²)."""
    t, scale = q.shape[2], q.shape[-1] ** -0.5
    blocks = torch.arange(t, device=q.device) // block
    means = torch.stack([each.mean(2) for each in k.split(block, dim=2)][:landmarks], dim=2)
    whitening = landmark_whitening(means, ridge)
    of_query, of_key = (landmark_features(x, means, whitening) for x in (q, k))
    of_key = of_key * (torch.arange(means.shape[2], device=q.device) <= blocks[:, None])
    apart = blocks[:, None] - blocks[None, :]
    far = of_query @ of_key.mT * (apart >= 2)
    sizes = of_query.abs() @ of_key.abs().mT * (apart >= 2)
    near = (q @ k.mT * scale).exp() * (apart < 2).to(q.dtype).tril()
    mass = near.sum(-1) + torch.maximum(far.sum(-1), FLOOR * sizes.sum(-1))
    return (near + far) @ v / mass[..., None]


def streaming_nystrom(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    block: int,
    landmarks: int,
    ridge: float,
) -> Float[Tensor, "b h t v"]:
    """Compute `dense_streaming_nystrom` in O(t·(block + landmarks)), from an empty past.

    Features and sums are in float32 at least; products with the values, and with the ones of the
    normaliser, are in the dtype of the inputs.
    """
    with autocast_off(v):
        t = q.shape[2]
        # An empty block before the sequence is the predecessor of its first block.
        q, k, v = (F.pad(x, (0, 0, block, -t % block)).unflatten(2, (-1, block)) for x in (q, k, v))
        first = torch.full((q.shape[0], 1), -1, device=q.device)
        few = k.new_zeros(*k.shape[:2], landmarks, k.shape[-1], dtype=accumulation_dtype(k))
        o, _, _ = _attend(q, k, v, first, few, None, ridge)
        return o[:, :, :t]


def extend_streaming_nystrom(
    q: Float[Tensor, "b h n k"],
    k: Float[Tensor, "b h n k"],
    v: Float[Tensor, "b h n v"],
    past: NystromPast,
    ridge: float,
) -> tuple[Float[Tensor, "b h n v"], NystromPast]:
    """Continue from a past with n more tokens; the sequences of a batch may be at different
    positions."""
    with autocast_off(v):
        n, kept, landmarks = q.shape[2], past.keys.shape[2], past.landmarks.shape[2]
        block = (kept + 1) // 2
        keys = torch.cat([past.keys, k.to(past.keys.dtype)], dim=2)
        values = torch.cat([past.values, v.to(past.values.dtype)], dim=2)
        # Each sequence is shifted so that its blocks are aligned; the first is the predecessor of
        # the first new token's block. Entries gathered from beyond the end come after all new
        # tokens: nothing returned depends on them.
        own = past.position % block
        positions = torch.arange(block * (1 + (2 * block - 2 + n) // block), device=q.device)
        source = (positions + block - 1 - own).clamp(max=kept + n - 1)
        moved = (
            _gather_tokens(q, (source - kept).clamp(min=0)),
            _gather_tokens(keys, source).to(q.dtype),
            _gather_tokens(values, source).to(v.dtype),
        )
        q, k, v = (x.unflatten(2, (-1, block)) for x in moved)
        o, few, sums = _attend(q, k, v, past.position // block - 1, past.landmarks, past.sums, ridge)
        position = past.position + n
        has_left = torch.arange(landmarks, device=q.device) < position // block - 1
        return _gather_tokens(o, own + torch.arange(n, device=q.device)), NystromPast(
            keys[:, :, n:].clone(),
            values[:, :, n:].clone(),
            position,
            few * has_left[:, None, :, None],
            sums.take_along_dim(((own + n) // block)[:, :, None, None, None], dim=2).squeeze(2),
        )


def _attend(
    q: Float[Tensor, "b h n c k"],
    k: Float[Tensor, "b h n c k"],
    v: Float[Tensor, "b h n c v"],
    first: Int[Tensor, "b 1"],
    landmarks: Float[Tensor, "b h m k"],
    sums: Float[Tensor, "b h m v+2"] | None,
    ridge: float,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h m k"], Float[Tensor, "b h n m v+2"]]:
    """Attend from all of n blocks but the first, which is block `first` of the sequence, or an
    empty one if -1.

    `sums` cover the tokens before the first block. Also return all landmarks, and the sums before
    each block.
    """
    numbers = first + torch.arange(q.shape[2], device=q.device)  # b n
    landmarks = _place_landmarks(landmarks, k.to(landmarks.dtype).mean(3), first)
    whitening = landmark_whitening(landmarks, ridge)
    # One more column of ones sums up the normaliser. In an empty block it is 0, like the values.
    mass = (numbers >= 0).to(v.dtype)[:, None, :, None, None].expand(*v.shape[:-1], 1)
    v = torch.cat([v, mass], dim=-1)

    of_key = _features(k[:, :, :-1], landmarks, whitening)
    sizes = of_key.abs().sum(-2)[..., None]
    added = torch.cat([(of_key.to(v.dtype).mT @ v[:, :, :-1]).to(sizes.dtype), sizes], dim=-1)
    exists = torch.arange(landmarks.shape[2], device=q.device) <= numbers[:, :-1, None]
    added = (added * exists[:, None, :, :, None]).flatten(-2)
    start = None if sums is None else sums.flatten(-2)
    starts, last = decayed_prefix_sum(added, torch.zeros_like(added[..., 0]), start)
    starts, last = (each.unflatten(-1, (*landmarks.shape[2:3], -1)) for each in (starts, last))

    of_query = _features(q[:, :, 1:], landmarks, whitening)
    sums, sizes = starts.split((v.shape[-1], 1), dim=-1)
    far = of_query.to(v.dtype) @ sums.to(v.dtype)
    least = FLOOR * (of_query.abs() @ sizes)
    near = _window_weights(q, k) @ torch.cat([v[:, :, :-1], v[:, :, 1:]], dim=3)
    numerator, mass = (near + far).split((v.shape[-1] - 1, 1), dim=-1)
    mass = mass + F.relu(least - far[..., -1:]).to(v.dtype)
    return (numerator / mass).flatten(2, 3), landmarks, torch.cat([starts, last[:, :, None]], dim=2)


def _window_weights(q: Float[Tensor, "b h n c k"], k: Float[Tensor, "b h n c k"]) -> Float[Tensor, "b h n-1 c 2*c"]:
    """Return exp(q·k / √k) for the keys of the block before and of the query's own block up to it;
    0 for later keys."""
    block = q.shape[3]
    scores = (q[:, :, 1:] * q.shape[-1] ** -0.5) @ torch.cat([k[:, :, :-1], k[:, :, 1:]], dim=3).mT
    later = torch.ones(block, 2 * block, dtype=torch.bool, device=q.device).triu(block + 1)
    return scores.masked_fill(later, -torch.inf).exp()


def _features(
    x: Float[Tensor, "b h n c k"], landmarks: Float[Tensor, "b h m k"], whitening: Float[Tensor, "b h m m"]
) -> Float[Tensor, "b h n c m"]:
    flat = landmark_features(x.to(landmarks.dtype).flatten(2, 3), landmarks, whitening)
    return flat.unflatten(2, x.shape[2:4])


def _place_landmarks(
    landmarks: Float[Tensor, "b h m k"], means: Float[Tensor, "b h n k"], first: Int[Tensor, "b 1"]
) -> Float[Tensor, "b h m k"]:
    """Insert the means of n blocks, numbered from `first`, at the landmarks with these numbers."""
    source = torch.arange(landmarks.shape[2], device=landmarks.device) - first
    known = (source >= 0) & (source < means.shape[2])
    return torch.where(known[:, None, :, None], _gather_tokens(means, source.clamp(0, means.shape[2] - 1)), landmarks)


def _gather_tokens(x: Float[Tensor, "b h t k"], positions: Int[Tensor, "b n"]) -> Float[Tensor, "b h n k"]:
    """Gather tokens by position, separately for each sequence of the batch."""
    return x.take_along_dim(positions[:, None, :, None], dim=2)
