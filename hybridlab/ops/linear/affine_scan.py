"""Scan of affine maps: the states between the chunks of a recurrence whose transition is a matrix (the delta rules).

Letters: n steps, k rows of the state and v its columns.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.precision import accumulation_dtype

# So many steps are taken one after the other, in all blocks at once.
BLOCK = 8


def recurrent_affine_scan(
    transition: Float[Tensor, "*b n k k"],
    added: Float[Tensor, "*b n k v"],
    start: Float[Tensor, "*b k v"] | None = None,
) -> tuple[Float[Tensor, "*b n k v"], Float[Tensor, "*b k v"]]:
    """Step through S_{i+1} = transition_i S_i + added_i; return S_0 = start (or 0) to S_{n-1}, and S_n."""
    state = torch.zeros_like(added[..., 0, :, :]) if start is None else start
    states = []
    for matrix, term in zip(transition.unbind(-3), added.unbind(-3), strict=True):
        states.append(state)
        state = matrix @ state + term
    return torch.stack(states, dim=-3), state


def affine_scan(
    transition: Float[Tensor, "*b n k k"],
    added: Float[Tensor, "*b n k v"],
    start: Float[Tensor, "*b k v"] | None = None,
) -> tuple[Float[Tensor, "*b n k v"], Float[Tensor, "*b k v"]]:
    """Give what `recurrent_affine_scan` gives in about 8 log₈ n dependent steps instead of n.

    Blocks of 8 steps run side by side, each from a state of zero and with the product of its transitions beside it. A
    scan over the blocks' totals, by this same function, gives each block's start, and the products carry it in.
    """
    n = transition.shape[-3]
    if n <= BLOCK:
        return recurrent_affine_scan(transition, added, start)
    if rest := n % BLOCK:
        states, last = affine_scan(transition[..., :-rest, :, :], added[..., :-rest, :, :], start)
        after, last = recurrent_affine_scan(transition[..., -rest:, :, :], added[..., -rest:, :, :], last)
        return torch.cat([states, after], dim=-3), last
    matrices, terms = (x.unflatten(-3, (-1, BLOCK)).unbind(-3) for x in (transition, added))
    products, sums = [matrices[0]], [terms[0]]
    for matrix, term in zip(matrices[1:], terms[1:], strict=True):
        products.append(matrix @ products[-1])
        sums.append(matrix @ sums[-1] + term)
    starts, last = affine_scan(products[-1], sums[-1], start)
    carried = [product @ starts + term for product, term in zip(products[:-1], sums[:-1], strict=True)]
    return torch.stack([starts, *carried], dim=-3).flatten(-4, -3), last


def diagonal_affine_scan(
    kept: Float[Tensor, "*b n k"],
    change: Float[Tensor, "*b n k k"],
    added: Float[Tensor, "*b n k v"],
    start: Float[Tensor, "*b k v"] | None = None,
) -> tuple[Float[Tensor, "*b n k v"], Float[Tensor, "*b k v"]]:
    """Scan S_{i+1} = Diag(kept_i) S_i + change_i S_i + added_i, as `affine_scan` does, in float32 at least."""
    dtype = accumulation_dtype(added)
    kept = kept.to(dtype).expand(added.shape[:-1])
    return affine_scan(torch.diag_embed(kept) + change, added.to(dtype), None if start is None else start.to(dtype))
