"""Linear attention with a decay per channel of the key: S_t = Diag(exp(g_t)) S_{t-1} + k_t v_tᵀ, o_t = S_tᵀ q_t.

The op of GLA (2312.06635). Letters: b batch, h heads, t time, k and v widths, n chunks of c tokens.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.kernels.dispatch import kernel_serves
from hybridlab.ops.kernels.padding import by_parts_of_keys
from hybridlab.ops.linear.channel_decay import channel_decay, in_chunks
from hybridlab.ops.linear.channel_recurrence import channel_recurrence_by_kernel
from hybridlab.ops.linear.prefix_sum import decayed_states
from hybridlab.ops.precision import accumulation_dtype, autocast_off


def recurrent_gated_linear_attention(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    log_decay: Float[Tensor, "b h t k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Step through the recurrence: the definition of the op."""
    with autocast_off(v):
        dtype = accumulation_dtype(v)
        queries, keys, values, decay = q.to(dtype), k.to(dtype), v.to(dtype), log_decay.to(dtype).exp()
        if state is None:
            state = values.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1])
        outputs = []
        for i in range(v.shape[2]):
            state = decay[:, :, i, :, None] * state + keys[:, :, i, :, None] * values[:, :, i, None, :]
            outputs.append((queries[:, :, i, :, None] * state).sum(-2))
        return torch.stack(outputs, dim=2).to(v.dtype), state


def chunked_gated_linear_attention(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    log_decay: Float[Tensor, "b h t k"],
    state: Float[Tensor, "b h k v"] | None = None,
    chunk: int = 64,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Give what `recurrent_gated_linear_attention` gives in O(t·chunk), for any t and log_decay <= 0; chunk a power of two.

    Within a chunk: masked attention. Between chunks: the state at each chunk's start, by a prefix sum. GPU kernels take
    chunks of their own size. Matrix products are in the dtype of the inputs; decays, prefix sums and the state in float32
    at least.
    """
    with autocast_off(v):
        t, dtype = v.shape[2], accumulation_dtype(v)
        if kernel_serves(v):
            return by_parts_of_keys(_by_kernels, q, k, v, log_decay, state)
        q, k, v, log_decay = in_chunks(chunk, q, k, v, log_decay.to(dtype))
        # What queries read of the state before their own token, and what they read of the token itself.
        faded, own = (q * log_decay.exp())[..., None, :], (q * k).sum(-1, keepdim=True)
        keys = k.to(dtype)[..., None, :]
        scores, queries, keys, total = channel_decay(faded, keys, log_decay, dtype=v.dtype)
        starts, last = decayed_states(keys.squeeze(-2).to(v.dtype).mT @ v, total, state)
        carried = queries.squeeze(-2).to(v.dtype) @ starts
        o = scores[..., 0, 0, :, :] @ v + own * v + carried
        return o.flatten(2, 3)[:, :, :t], last


def _by_kernels(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    assert log_decay is not None
    return channel_recurrence_by_kernel(q, None, None, k, v, log_decay, state)
