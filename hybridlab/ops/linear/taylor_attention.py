"""Attention with the second-order Taylor polynomial of the exponential: weights 1 + s + s²/2, s = q·k / √d, that sum to 1.

Letters: b batch, h heads, t time, n chunks of c tokens, d width of queries and keys, f their features, v of the values.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.kernels.dispatch import taylor_kernel_serves
from hybridlab.ops.kernels.launch import compiled_at_once
from hybridlab.ops.linear.chunks import in_chunks
from hybridlab.ops.linear.normalised_attention import (
    ALIGNMENT,
    EPSILON,
    bidirectional_normalised_attention,
    with_normaliser,
)
from hybridlab.ops.linear.prefix_sum import decayed_prefix_sum
from hybridlab.ops.precision import accumulation_dtype, autocast_off

LONGEST = 2048  # tokens of a row: up to here all pairs cost a GPU less than features do


def dense_taylor_attention(
    q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], v: Float[Tensor, "b h t v"], *, causal: bool
) -> Float[Tensor, "b h t v"]:
    """Weigh the values by a matrix of t times t whose rows are divided by their sums: the definition of the op."""
    with autocast_off(v):
        weights = _polynomial(q @ k.mT / q.shape[-1] ** 0.5)
        weights = weights.tril() if causal else weights
        return weights / (weights.sum(-1, keepdim=True) + EPSILON) @ v


def chunked_taylor_attention(
    q: Float[Tensor, "b h t d"],
    k: Float[Tensor, "b h t d"],
    v: Float[Tensor, "b h t v"],
    state: Float[Tensor, "b h f v+1"] | None = None,
    chunk: int = 128,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h f v+1"]]:
    """Give the causal form in O(t·chunk), after a past whose sums Σ φ(k) [v, 1]ᵀ are `state`; return also those after it.

    Within a chunk the polynomial is taken of q·k, d numbers long; features, of which there are about d²/2, only carry the
    past in. GPU kernels take all pairs of a row that is not long. Matrix products are in the dtype of the inputs, the sums in
    float32 at least.
    """
    if v.shape[2] <= LONGEST and taylor_kernel_serves(v, q.shape[-1], v.shape[-1]):
        with autocast_off(v):
            return _by_kernels(q, k, v, state)
    return with_normaliser(lambda v, sums: _in_chunks(q, k, v, sums, chunk), v, state)


def bidirectional_taylor_attention(
    q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], v: Float[Tensor, "b h t v"]
) -> Float[Tensor, "b h t v"]:
    """Give the bidirectional form in O(t)."""
    with autocast_off(v):
        return bidirectional_normalised_attention(taylor_features(q), taylor_features(k), v)


def taylor_features(x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b f"]:
    """Return φ(x) = [1, y, upper triangle of y yᵀ] with y = x / d^¼, so that φ(q)·φ(k) = 1 + s + s²/2 (Based, 2402.18668).

    What stands off the diagonal counts once instead of twice, times √2: (d + 1)(d + 2) / 2 features instead of 1 + d + d²,
    153 instead of 273 for d = 16; filled with zeros to a multiple of 8.
    """
    d = x.shape[-1]
    # Each feature is the product of two entries of [1, y]. They are picked by matrix products: the gradient of indexing
    # would add up one number at a time.
    first, second = torch.triu_indices(d + 1, d + 1, device=x.device)
    one_of = torch.eye(d + 1, dtype=x.dtype, device=x.device)
    # 1·1 and 1·y count as they are; products of two different entries too: √2 / √2; squares: 1 / √2.
    is_square = (first == second) & (first > 0)
    left, right = one_of[first], one_of[second]
    left = torch.where(is_square[:, None], left * 0.5**0.5, left)
    left, right = (F.pad(each, (0, 0, 0, -len(first) % ALIGNMENT)) for each in (left, right))
    y = x * d**-0.25
    # Contiguous: a GPU's matrix units take no rows that start anywhere.
    left, right, of_left, of_right = left[:, 1:].contiguous(), right[:, 1:].contiguous(), left[:, 0], right[:, 0]
    return F.linear(y, left, of_left) * F.linear(y, right, of_right)


def num_taylor_features(d: int) -> int:
    """Return the width of `taylor_features`."""
    features = (d + 1) * (d + 2) // 2
    return features + -features % ALIGNMENT


def _in_chunks(q: Tensor, k: Tensor, v: Tensor, start: Tensor | None, chunk: int) -> tuple[Tensor, Tensor]:
    (b, h, t, width), chunk = v.shape, min(chunk, v.shape[2])
    # Keys of zero, which fill the last chunk, have weights of 1 but values and a normaliser of zero.
    q, k, v = (in_chunks(x, chunk) for x in (q, k, v))
    within = _polynomial((q * q.shape[-1] ** -0.5) @ k.mT).tril() @ v
    added = (taylor_features(k).mT @ v).flatten(-2).to(accumulation_dtype(v))
    starts, last = decayed_prefix_sum(
        added, torch.zeros_like(added[..., 0]), None if start is None else start.flatten(-2)
    )
    o = within + taylor_features(q) @ starts.unflatten(-1, (-1, width)).to(v.dtype)
    return o.reshape(b, h, -1, width)[:, :, :t], last.unflatten(-1, (-1, width))


@compiled_at_once
def _by_kernels(q: Tensor, k: Tensor, v: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    from hybridlab.ops.kernels.taylor_attention import attend

    q, k = q.to(v.dtype), k.to(v.dtype)
    o, sums = attend(*(x.flatten(0, 1) for x in (q * q.shape[-1] ** -0.5, k, v)))
    o, sums = o.view_as(v), sums.view(v.shape[:3])[..., None]
    features = taylor_features(k).mT
    last = torch.cat([features @ v, features.sum(-1, keepdim=True)], dim=-1).float()
    if state is not None:
        past = taylor_features(q) @ state.to(v.dtype)
        o, sums, last = o + past[..., :-1], sums + past[..., -1:], last + state
    return (o / (sums + EPSILON)).to(v.dtype), last


def _polynomial(scores: Tensor) -> Tensor:
    return 1 + scores * (1 + 0.5 * scores)
