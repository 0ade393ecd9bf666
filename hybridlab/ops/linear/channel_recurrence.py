"""A recurrence with a decay per channel in chunks, by GPU kernels, for the ops that share it.

Letters: b batch, h heads, t time, k and v widths. The kernels take chunks of 64 tokens.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.kernels.launch import compiled_at_once
from hybridlab.ops.kernels.padding import rounded_up, widened

CHUNK = 64


@compiled_at_once
def channel_recurrence_by_kernel(
    q: Float[Tensor, "b h t k"],
    a: Float[Tensor, "b h t k"] | None,
    b: Float[Tensor, "b h t k"] | None,
    k: Float[Tensor, "b h t k"] | None,
    v: Float[Tensor, "b h t v"],
    log_decay: Float[Tensor, "b h t k"],
    state: Float[Tensor, "b h k v"] | None,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Step through S_t = Diag(exp(g_t)) S_{t-1} + b_t z_tᵀ + k_t v_tᵀ, o_t = S_tᵀ q_t, z_t = S_{t-1}ᵀ a_t; return the last S.

    Without a and b: linear attention. Without k: a reads the state when it has decayed, v is added to what it reads, and b
    writes both, which is the delta rule. Values in half precision, log decays and states in float32.
    """
    from hybridlab.ops.kernels.channel_recurrence import channel_recurrence

    (rows, heads, t, width), size = v.shape, q.shape[-1]
    if state is None:
        state = torch.zeros(rows, heads, size, width, dtype=torch.float32, device=v.device)
    # A program of the kernels has 64 columns; tokens of zeros leave the state as it is.
    tokens, keys, values = rounded_up(t, CHUNK), rounded_up(size, 64), rounded_up(width, 64)
    a, b, k = (None if x is None else widened(x.flatten(0, 1), keys, tokens) for x in (a, b, k))
    q, log_decay = (widened(x.flatten(0, 1), keys, tokens) for x in (q, log_decay.float()))
    v, state = widened(v.flatten(0, 1), values, tokens), widened(state.float().flatten(0, 1), values, keys)
    o, last, *_ = channel_recurrence(q, a, b, k, v, log_decay, state)
    return o[:, :t, :width].unflatten(0, (rows, heads)), last[:, :size, :width].unflatten(0, (rows, heads))
