"""Run GPU kernels for the chunked recurrence with a decay per channel, which several ops share.

Letters: b batch, h heads, t time, k and v widths.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.kernels.launch import compiled_at_once
from hybridlab.ops.kernels.padding import CHUNK, pad_to, round_up


@compiled_at_once
def run_channel_recurrence(
    q: Float[Tensor, "b h t k"],
    a: Float[Tensor, "b h t k"] | None,
    b: Float[Tensor, "b h t k"] | None,
    k: Float[Tensor, "b h t k"] | None,
    v: Float[Tensor, "b h t v"],
    log_decay: Float[Tensor, "b h t k"],
    state: Float[Tensor, "b h k v"] | None,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Return the outputs o_t and the last S of a recurrence with a decay per channel.

    S_t = Diag(exp(g_t)) S_{t-1} + b_t z_tᵀ + k_t v_tᵀ, z_t = S_{t-1}ᵀ a_t, o_t = S_tᵀ q_t.

    Without a and b this is linear attention. Without k it is the delta rule: a reads the decayed
    state, v is added to the result, and b writes the sum. Values are in half precision, log decays
    and states in float32.
    """
    from hybridlab.ops.kernels.channel_recurrence import channel_recurrence

    (batch, heads, t, value_width), key_width = v.shape, q.shape[-1]
    if state is None:
        state = torch.zeros(batch, heads, key_width, value_width, dtype=torch.float32, device=v.device)
    # A program of the kernels has 64 columns. Zero tokens leave the state unchanged.
    padded_t, padded_k, padded_v = round_up(t, CHUNK), round_up(key_width, 64), round_up(value_width, 64)
    a, b, k = (None if x is None else pad_to(x.flatten(0, 1), padded_k, padded_t) for x in (a, b, k))
    q, log_decay = (pad_to(x.flatten(0, 1), padded_k, padded_t) for x in (q, log_decay.float()))
    v, state = pad_to(v.flatten(0, 1), padded_v, padded_t), pad_to(state.float().flatten(0, 1), padded_v, padded_k)
    o, final_state, *_ = channel_recurrence(q, a, b, k, v, log_decay, state)
    return o[:, :t, :value_width].unflatten(0, (batch, heads)), final_state[:, :key_width, :value_width].unflatten(
        0, (batch, heads)
    )
