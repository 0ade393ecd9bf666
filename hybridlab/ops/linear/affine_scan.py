"""Scan of affine maps: the states between the chunks of the delta rules.

Letters: n steps, k rows and v columns of the state.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.precision import accumulation_dtype

BLOCK = 8  # steps that run one after the other, in all blocks at once


def recurrent_affine_scan(
    transition: Float[Tensor, "*b n k k"],
    increment: Float[Tensor, "*b n k v"],
    initial_state: Float[Tensor, "*b k v"] | None = None,
) -> tuple[Float[Tensor, "*b n k v"], Float[Tensor, "*b k v"]]:
    """Step through S_{i+1} = transition_i S_i + increment_i; return S_0, ..., S_{n-1} and S_n.

    S_0 is `initial_state`, or 0.
    """
    state = torch.zeros_like(increment[..., 0, :, :]) if initial_state is None else initial_state
    states = []
    for matrix, term in zip(transition.unbind(-3), increment.unbind(-3), strict=True):
        states.append(state)
        state = matrix @ state + term
    return torch.stack(states, dim=-3), state


def affine_scan(
    transition: Float[Tensor, "*b n k k"],
    increment: Float[Tensor, "*b n k v"],
    initial_state: Float[Tensor, "*b k v"] | None = None,
) -> tuple[Float[Tensor, "*b n k v"], Float[Tensor, "*b k v"]]:
    """Compute `recurrent_affine_scan` in about 8 log₈ n dependent steps instead of n.

    Blocks of 8 steps run side by side, each from a zero state, and accumulate the products of their
    transitions. This function then scans over the block totals, which gives the state at the start
    of each block; the products carry that state into the block.
    """
    n = transition.shape[-3]
    if n <= BLOCK:
        return recurrent_affine_scan(transition, increment, initial_state)
    if remainder := n % BLOCK:
        states, final_state = affine_scan(
            transition[..., :-remainder, :, :], increment[..., :-remainder, :, :], initial_state
        )
        tail, final_state = recurrent_affine_scan(
            transition[..., -remainder:, :, :], increment[..., -remainder:, :, :], final_state
        )
        return torch.cat([states, tail], dim=-3), final_state
    matrices, terms = (x.unflatten(-3, (-1, BLOCK)).unbind(-3) for x in (transition, increment))
    products, sums = [matrices[0]], [terms[0]]
    for matrix, term in zip(matrices[1:], terms[1:], strict=True):
        products.append(matrix @ products[-1])
        sums.append(matrix @ sums[-1] + term)
    block_starts, final_state = affine_scan(products[-1], sums[-1], initial_state)
    within_blocks = [product @ block_starts + term for product, term in zip(products[:-1], sums[:-1], strict=True)]
    return torch.stack([block_starts, *within_blocks], dim=-3).flatten(-4, -3), final_state


def diagonal_affine_scan(
    decay: Float[Tensor, "*b n #k"],
    coupling: Float[Tensor, "*b n k k"],
    increment: Float[Tensor, "*b n k v"],
    initial_state: Float[Tensor, "*b k v"] | None = None,
) -> tuple[Float[Tensor, "*b n k v"], Float[Tensor, "*b k v"]]:
    """Scan S_{i+1} = (Diag(decay_i) + coupling_i) S_i + increment_i in at least float32."""
    dtype = accumulation_dtype(increment)
    decay = decay.to(dtype).expand(increment.shape[:-1])
    return affine_scan(
        torch.diag_embed(decay) + coupling,
        increment.to(dtype),
        None if initial_state is None else initial_state.to(dtype),
    )
