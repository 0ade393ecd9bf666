"""Linear attention with or without decay: S_t = exp(g_t) S_{t-1} + k_t v_tᵀ, o_t = S_tᵀ q_t.

Letters: b batch, h heads, g groups of heads that share queries and keys (h is a multiple of g), t time, k and v widths.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.kernels.dispatch import chunk_length, kernel_serves
from hybridlab.ops.kernels.padding import by_parts_of_keys, parts_of
from hybridlab.ops.linear.chunk_recurrence import CHUNK, recurrence_by_kernel
from hybridlab.ops.linear.chunks import in_chunks
from hybridlab.ops.linear.prefix_sum import decayed_states
from hybridlab.ops.precision import accumulation_dtype, autocast_off


def recurrent_linear_attention(
    q: Float[Tensor, "b g t k"],
    k: Float[Tensor, "b g t k"],
    v: Float[Tensor, "b h t v"],
    log_decay: Float[Tensor, "b h t"] | None = None,
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Step through the recurrence: the definition of the op. A log_decay of None is 0: nothing is forgotten."""
    with autocast_off(v):
        dtype, sharing = accumulation_dtype(v), v.shape[1] // q.shape[1]
        queries, keys = (x.to(dtype).repeat_interleave(sharing, dim=1) for x in (q, k))
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
    """Give what `recurrent_linear_attention` gives in O(t·chunk), for any t; log_decay <= 0; chunk None: as is fast.

    Within a chunk: masked attention. Between chunks: the state at each chunk's start, by a prefix sum. Matrix products
    are in the dtype of the inputs; decays, prefix sums and the state in float32 at least (Mamba-2's SSD, 2405.21060).
    GPU kernels take chunks of their own size.
    """
    # Zeros, which fill the last chunk, leave the recurrence as it is.
    with autocast_off(v):
        (b, h, t, _), groups, dtype = v.shape, q.shape[1], accumulation_dtype(v)
        if kernel_serves(v, rows=b * h * parts_of(k.shape[-1])):
            return by_parts_of_keys(_by_kernels, q, k, v, log_decay, state)
        chunk = chunk or (chunk_length(v) if log_decay is None else 64)
        chunk, sharing = min(chunk, t), (groups, h // groups)
        q, k = in_chunks(q, chunk)[:, :, None], in_chunks(k, chunk)[:, :, None]  # b g 1 n c k
        v = in_chunks(v, chunk).unflatten(1, sharing)  # b g h/g n c v
        start = None if state is None else state.to(dtype).unflatten(1, sharing)
        if log_decay is None:
            o, last = _without_decay(q, k, v, start)
        else:
            log_decay = in_chunks(log_decay.to(dtype)[..., None], chunk).squeeze(-1).unflatten(1, sharing)
            o, last = _with_decay(q, k, v, log_decay, start)
        return o.reshape(b, h, -1, o.shape[-1])[:, :, :t], last.reshape(b, h, q.shape[-1], v.shape[-1])


def _by_kernels(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    q, k, values = (in_chunks(x, CHUNK) for x in (q, k, v))
    left = None
    if log_decay is not None:
        left = in_chunks(log_decay.to(accumulation_dtype(v))[..., None], CHUNK)[..., 0].cumsum(-1)
    o, last = recurrence_by_kernel(q, k, values, None, left, state)
    return o[:, :, : v.shape[2]], last


def _without_decay(q: Tensor, k: Tensor, v: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor]:
    within = (q @ k.mT).tril() @ v
    added = k.mT @ v
    starts, last = decayed_states(added, torch.zeros_like(added[..., 0, :1]), start)
    return within + q @ starts, last


def _with_decay(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor]:
    left = log_decay.cumsum(-1)  # the logarithm of what is left of the chunk's start at each of its tokens
    future = torch.ones(left.shape[-1], left.shape[-1], dtype=torch.bool, device=left.device).triu(1)
    # Masked before the exponential: what lies above the diagonal may overflow, and inf · 0 is no gradient.
    # In place, because these are the largest tensors of the op.
    decay = (left[..., :, None] - left[..., None, :]).masked_fill_(future, -torch.inf).exp_()
    within = (q @ k.mT * decay.to(q.dtype)) @ v
    until_end = (left[..., -1:] - left).exp()[..., None].to(v.dtype)
    starts, last = decayed_states(k.mT @ (v * until_end), left[..., -1:], start)
    return torch.addcmul(within, q @ starts, left.exp()[..., None].to(v.dtype)), last
