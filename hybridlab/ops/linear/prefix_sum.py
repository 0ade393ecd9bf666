"""Decayed prefix sums: all states of a linear recurrence at once.

Letters: n steps, f features, k and v rows and columns of a matrix state.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.precision import accumulation_dtype

# One small matrix product per block. The block sums are summed in the same way, so the total cost
# is linear in n.
BLOCK = 16


def recurrent_prefix_sum(
    x: Float[Tensor, "*b n f"], log_decay: Float[Tensor, "*b n"], initial_state: Float[Tensor, "*b f"] | None = None
) -> tuple[Float[Tensor, "*b n f"], Float[Tensor, "*b f"]]:
    """Step through S_{i+1} = exp(log_decay_i) S_i + x_i; return S_0, ..., S_{n-1} and S_n.

    S_0 is `initial_state`, or 0.
    """
    state = torch.zeros_like(x[..., 0, :]) if initial_state is None else initial_state
    states = []
    for term, decay in zip(x.unbind(-2), log_decay.exp().unbind(-1), strict=True):
        states.append(state)
        state = decay[..., None] * state + term
    return torch.stack(states, dim=-2), state


def decayed_prefix_sum(
    x: Float[Tensor, "*b n f"], log_decay: Float[Tensor, "*b n"], initial_state: Float[Tensor, "*b f"] | None = None
) -> tuple[Float[Tensor, "*b n f"], Float[Tensor, "*b f"]]:
    """Compute `recurrent_prefix_sum` in O(n) by matrix products, without a loop; log_decay <= 0."""
    n = x.shape[-2]
    if n > BLOCK:
        return _blocked_prefix_sum(x, log_decay, initial_state)
    cum_log_decay = log_decay.cumsum(-1)  # from the initial state to the state after each step
    exclusive_cum = F.pad(cum_log_decay, (1, 0))
    past = torch.ones(n + 1, n, dtype=torch.bool, device=x.device).tril(-1)
    # The mask precedes the exponential: entries above the diagonal may overflow, and inf · 0 has no
    # gradient.
    weights = (exclusive_cum[..., :, None] - cum_log_decay[..., None, :]).masked_fill(~past, -torch.inf).exp()
    sums = weights @ x
    if initial_state is not None:
        sums = sums + exclusive_cum.exp()[..., None] * initial_state[..., None, :]
    return sums[..., :-1, :], sums[..., -1, :]


def decayed_states(
    increments: Float[Tensor, "*b n k v"],
    log_decay: Float[Tensor, "*b n k"] | Float[Tensor, "*b n 1"],
    initial_state: Float[Tensor, "*b k v"] | None = None,
) -> tuple[Float[Tensor, "*b n k v"], Float[Tensor, "*b k v"]]:
    """Return the decayed prefix sums of matrices, and the last one.

    The sums are in the dtype of `increments`, the last one in at least float32. The rows of a
    matrix each have a log decay (<= 0), or share one. Sums are computed in at least float32.
    """
    (k, v), dtype = increments.shape[-2:], accumulation_dtype(increments)
    log_decay, initial_state = log_decay.to(dtype), None if initial_state is None else initial_state.to(dtype)
    if log_decay.shape[-1] == 1:
        flat = increments.flatten(-2).to(dtype)
        states, final_state = decayed_prefix_sum(
            flat, log_decay[..., 0], None if initial_state is None else initial_state.flatten(-2)
        )
        return states.unflatten(-1, (k, v)).to(increments.dtype), final_state.unflatten(-1, (k, v))
    states, final_state = decayed_prefix_sum(increments.to(dtype).transpose(-3, -2), log_decay.mT, initial_state)
    return states.transpose(-3, -2).to(increments.dtype), final_state


def _blocked_prefix_sum(x: Tensor, log_decay: Tensor, initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
    n = x.shape[-2]
    if missing := -n % BLOCK:
        x, log_decay = F.pad(x, (0, 0, 0, missing)), F.pad(log_decay, (0, missing))
    x, log_decay = x.unflatten(-2, (-1, BLOCK)), log_decay.unflatten(-1, (-1, BLOCK))
    intra_block, block_sums = decayed_prefix_sum(x, log_decay)
    block_starts, final_state = decayed_prefix_sum(block_sums, log_decay.sum(-1), initial_state)
    decay_from_start = F.pad(log_decay.cumsum(-1)[..., :-1], (1, 0)).exp()
    states = intra_block + decay_from_start[..., None] * block_starts[..., None, :]
    return states.flatten(-3, -2)[..., :n, :], final_state
