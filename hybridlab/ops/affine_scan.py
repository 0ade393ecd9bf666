"""Scan of affine maps: the states between the chunks of a recurrence whose transition is a matrix (the delta rules).

Letters: n steps, k rows of the state and v its columns.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

# So few steps are taken one by one: their products would cost more than they save.
FEW = 8


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
    """Give what `recurrent_affine_scan` gives in about 2√n dependent steps instead of n.

    The steps are cut into √n blocks. All blocks run side by side from a state of zero, with the product of their
    transitions beside it; a scan over the blocks' totals gives each block's start, and the products carry it in.
    """
    n, k = transition.shape[-3], transition.shape[-1]
    if n <= FEW:
        return recurrent_affine_scan(transition, added, start)
    block = math.ceil(math.sqrt(n))
    if missing := -n % block:
        identity = torch.eye(k, dtype=transition.dtype, device=transition.device).expand(
            *transition.shape[:-3], missing, k, k
        )
        transition, added = torch.cat([transition, identity], dim=-3), F.pad(added, (0, 0, 0, 0, 0, missing))
    transition, added = (x.unflatten(-3, (-1, block)) for x in (transition, added))
    # Products and states together are one affine map: [product | state] goes to transition [product | state] + [0 | added].
    first = torch.eye(k, dtype=added.dtype, device=added.device).expand(*added.shape[:-3], k, k)
    both, ends = recurrent_affine_scan(
        transition, F.pad(added, (k, 0)), torch.cat([first, torch.zeros_like(added[..., 0, :, :])], dim=-1)
    )
    starts, last = affine_scan(ends[..., :k], ends[..., k:], start)
    states = both[..., k:] + both[..., :k] @ starts[..., None, :, :]
    return states.flatten(-4, -3)[..., :n, :, :], last
