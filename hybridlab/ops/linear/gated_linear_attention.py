"""Linear attention with a decay per channel of the key.

S_t = Diag(exp(g_t)) S_{t-1} + k_t v_tᵀ, o_t = S_tᵀ q_t.

The op of GLA (2312.06635).
Letters: b batch, h heads, t time, k and v widths, n chunks of c tokens.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.kernels.dispatch import can_use_kernel
from hybridlab.ops.kernels.padding import split_over_keys
from hybridlab.ops.linear.channel_decay import channel_decay, split_power_of_two_chunks
from hybridlab.ops.linear.channel_recurrence import run_channel_recurrence
from hybridlab.ops.linear.prefix_sum import decayed_states
from hybridlab.ops.precision import accumulation_dtype, autocast_off


def recurrent_gated_linear_attention(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    log_decay: Float[Tensor, "b h t k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Compute the op from its definition, step by step."""
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
    """Compute `recurrent_gated_linear_attention` in O(t·chunk), for any t and log_decay <= 0.

    The chunk length is a power of two. Within chunks: masked attention. Between chunks: a prefix
    sum gives the state at each chunk's start. GPU kernels use chunks of their own size. Matrix
    products are in the dtype of the inputs. Decays, prefix sums and the state are in at least
    float32.
    """
    with autocast_off(v):
        t, dtype = v.shape[2], accumulation_dtype(v)
        if can_use_kernel(v):
            return split_over_keys(_run_kernels, q, k, v, log_decay, state)
        q, k, v, log_decay = split_power_of_two_chunks(chunk, q, k, v, log_decay.to(dtype))
        # Queries read the decayed state before their token, and the token itself without decay.
        decayed_queries, own_scores = (q * log_decay.exp())[..., None, :], (q * k).sum(-1, keepdim=True)
        decayed_keys = k.to(dtype)[..., None, :]
        scores, decayed_queries, decayed_keys, total_log_decay = channel_decay(
            decayed_queries, decayed_keys, log_decay, dtype=v.dtype
        )
        chunk_starts, final_state = decayed_states(decayed_keys.squeeze(-2).to(v.dtype).mT @ v, total_log_decay, state)
        inter_chunk = decayed_queries.squeeze(-2).to(v.dtype) @ chunk_starts
        o = scores[..., 0, 0, :, :] @ v + own_scores * v + inter_chunk
        return o.flatten(2, 3)[:, :, :t], final_state


def _run_kernels(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    assert log_decay is not None
    return run_channel_recurrence(q, None, None, k, v, log_decay, state)
