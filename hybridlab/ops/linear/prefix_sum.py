"""Prefix sums that decay: the states of a linear recurrence, all at once."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.precision import accumulation_dtype

# A small matrix product per block; the totals of the blocks are summed in the same way, so the whole stays linear in n.
BLOCK = 16


def recurrent_prefix_sum(
    x: Float[Tensor, "*b n f"], log_decay: Float[Tensor, "*b n"], start: Float[Tensor, "*b f"] | None = None
) -> tuple[Float[Tensor, "*b n f"], Float[Tensor, "*b f"]]:
    """Step through S_{i+1} = exp(log_decay_i) S_i + x_i; return S_0 = start (or 0) to S_{n-1}, and S_n."""
    state = torch.zeros_like(x[..., 0, :]) if start is None else start
    states = []
    for step, decay in zip(x.unbind(-2), log_decay.exp().unbind(-1), strict=True):
        states.append(state)
        state = decay[..., None] * state + step
    return torch.stack(states, dim=-2), state


def decayed_prefix_sum(
    x: Float[Tensor, "*b n f"], log_decay: Float[Tensor, "*b n"], start: Float[Tensor, "*b f"] | None = None
) -> tuple[Float[Tensor, "*b n f"], Float[Tensor, "*b f"]]:
    """Give what `recurrent_prefix_sum` gives by matrix products, O(n) and without a loop over n; log_decay <= 0."""
    n = x.shape[-2]
    if n > BLOCK:
        return _over_blocks(x, log_decay, start)
    after = log_decay.cumsum(-1)  # the logarithm of what is left of the start after each step
    before = F.pad(after, (1, 0))
    earlier = torch.ones(n + 1, n, dtype=torch.bool, device=x.device).tril(-1)
    # Masked before the exponential: what lies above the diagonal may overflow, and inf · 0 is no gradient.
    weights = (before[..., :, None] - after[..., None, :]).masked_fill(~earlier, -torch.inf).exp()
    sums = weights @ x
    if start is not None:
        sums = sums + before.exp()[..., None] * start[..., None, :]
    return sums[..., :-1, :], sums[..., -1, :]


def decayed_states(
    added: Float[Tensor, "*b n k v"],
    log_decay: Float[Tensor, "*b n k"] | Float[Tensor, "*b n 1"],
    start: Float[Tensor, "*b k v"] | None = None,
) -> tuple[Float[Tensor, "*b n k v"], Float[Tensor, "*b k v"]]:
    """Return the decayed prefix sums of matrices, in the dtype of `added`, and the last in float32 at least.

    Each row of the matrix has a log decay (<= 0) of its own, or all have one. Sums are in float32 at least.
    """
    (k, v), dtype = added.shape[-2:], accumulation_dtype(added)
    log_decay, start = log_decay.to(dtype), None if start is None else start.to(dtype)
    if log_decay.shape[-1] == 1:
        flat = added.flatten(-2).to(dtype)
        states, last = decayed_prefix_sum(flat, log_decay[..., 0], None if start is None else start.flatten(-2))
        return states.unflatten(-1, (k, v)).to(added.dtype), last.unflatten(-1, (k, v))
    states, last = decayed_prefix_sum(added.to(dtype).transpose(-3, -2), log_decay.mT, start)
    return states.transpose(-3, -2).to(added.dtype), last


def _over_blocks(x: Tensor, log_decay: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor]:
    n = x.shape[-2]
    if missing := -n % BLOCK:
        x, log_decay = F.pad(x, (0, 0, 0, missing)), F.pad(log_decay, (0, missing))
    x, log_decay = x.unflatten(-2, (-1, BLOCK)), log_decay.unflatten(-1, (-1, BLOCK))
    within, totals = decayed_prefix_sum(x, log_decay)
    starts, last = decayed_prefix_sum(totals, log_decay.sum(-1), start)
    left = F.pad(log_decay.cumsum(-1)[..., :-1], (1, 0)).exp()
    states = within + left[..., None] * starts[..., None, :]
    return states.flatten(-3, -2)[..., :n, :], last
