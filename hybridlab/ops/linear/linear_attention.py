"""Linear attention with or without decay: S_t = exp(g_t) S_{t-1} + k_t v_tᵀ, o_t = S_tᵀ q_t.

Letters: b batch, h heads, g groups of heads that share queries and keys (h is a multiple of g), t
time, k and v widths.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.kernels.dispatch import can_use_kernel, chunk_length
from hybridlab.ops.kernels.padding import CHUNK, num_splits, split_over_keys
from hybridlab.ops.linear.chunk_recurrence import run_chunk_recurrence
from hybridlab.ops.linear.chunks import split_chunks
from hybridlab.ops.linear.prefix_sum import decayed_states
from hybridlab.ops.precision import accumulation_dtype, autocast_off


def recurrent_linear_attention(
    q: Float[Tensor, "b g t k"],
    k: Float[Tensor, "b g t k"],
    v: Float[Tensor, "b h t v"],
    log_decay: Float[Tensor, "b h t"] | None = None,
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Compute the op from its definition, step by step. A `log_decay` of None means no decay."""
    with autocast_off(v):
        dtype, group_size = accumulation_dtype(v), v.shape[1] // q.shape[1]
        queries, keys = (x.to(dtype).repeat_interleave(group_size, dim=1) for x in (q, k))
        values = v.to(dtype)
        decay = torch.ones_like(values[..., 0]) if log_decay is None else log_decay.to(dtype).exp()
        if state is None:
            state = values.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1])
        outputs = []
        for i in range(v.shape[2]):
            state = decay[:, :, i, None, None] * state + keys[:, :, i, :, None] * values[:, :, i, None, :]
            outputs.append((queries[:, :, i, :, None] * state).sum(-2))
        return torch.stack(outputs, dim=2).to(v.dtype), state


def chunked_linear_attention(
    q: Float[Tensor, "b g t k"],
    k: Float[Tensor, "b g t k"],
    v: Float[Tensor, "b h t v"],
    log_decay: Float[Tensor, "b h t"] | None = None,
    state: Float[Tensor, "b h k v"] | None = None,
    chunk: int | None = None,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Compute `recurrent_linear_attention` in O(t·chunk), for any t and log_decay <= 0.

    The form is the SSD of Mamba-2 (2405.21060). Within chunks: masked attention. Between chunks: a
    prefix sum gives the state at each chunk's start. A `chunk` of None selects a fast length; GPU
    kernels use chunks of their own size. Matrix products are in the dtype of the inputs. Decays,
    prefix sums and the state are in at least float32.
    """
    # The zeros that pad the last chunk leave the recurrence unchanged.
    with autocast_off(v):
        (b, h, t, _), groups, dtype = v.shape, q.shape[1], accumulation_dtype(v)
        if can_use_kernel(v, batch_heads=b * h * num_splits(k.shape[-1])):
            return split_over_keys(_run_kernels, q, k, v, log_decay, state)
        chunk = chunk or (chunk_length(v) if log_decay is None else 64)
        chunk, by_group = min(chunk, t), (groups, h // groups)
        q, k = split_chunks(q, chunk)[:, :, None], split_chunks(k, chunk)[:, :, None]  # b g 1 n c k
        v = split_chunks(v, chunk).unflatten(1, by_group)  # b g h/g n c v
        initial_state = None if state is None else state.to(dtype).unflatten(1, by_group)
        if log_decay is None:
            o, final_state = _attend_without_decay(q, k, v, initial_state)
        else:
            log_decay = split_chunks(log_decay.to(dtype)[..., None], chunk).squeeze(-1).unflatten(1, by_group)
            o, final_state = _attend_with_decay(q, k, v, log_decay, initial_state)
        return o.reshape(b, h, -1, o.shape[-1])[:, :, :t], final_state.reshape(b, h, q.shape[-1], v.shape[-1])


def _run_kernels(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    q, k, values = (split_chunks(x, CHUNK) for x in (q, k, v))
    cum_log_decay = None
    if log_decay is not None:
        cum_log_decay = split_chunks(log_decay.to(accumulation_dtype(v))[..., None], CHUNK)[..., 0].cumsum(-1)
    o, final_state = run_chunk_recurrence(q, k, values, None, cum_log_decay, state)
    return o[:, :, : v.shape[2]], final_state


def _attend_without_decay(q: Tensor, k: Tensor, v: Tensor, initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
    intra_chunk = (q @ k.mT).tril() @ v
    increments = k.mT @ v
    chunk_starts, final_state = decayed_states(increments, torch.zeros_like(increments[..., 0, :1]), initial_state)
    return intra_chunk + q @ chunk_starts, final_state


def _attend_with_decay(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    cum_log_decay = log_decay.cumsum(-1)  # from the chunk's start to each token, itself included
    future = torch.ones(
        cum_log_decay.shape[-1], cum_log_decay.shape[-1], dtype=torch.bool, device=cum_log_decay.device
    ).triu(1)
    # The mask precedes the exponential: entries above the diagonal may overflow, and inf · 0 has no
    # gradient. In place, because these are the op's largest tensors.
    decay = (cum_log_decay[..., :, None] - cum_log_decay[..., None, :]).masked_fill_(future, -torch.inf).exp_()
    intra_chunk = (q @ k.mT * decay.to(q.dtype)) @ v
    decay_to_end = (cum_log_decay[..., -1:] - cum_log_decay).exp()[..., None].to(v.dtype)
    chunk_starts, final_state = decayed_states(k.mT @ (v * decay_to_end), cum_log_decay[..., -1:], initial_state)
    return torch.addcmul(intra_chunk, q @ chunk_starts, cum_log_decay.exp()[..., None].to(v.dtype)), final_state
