"""A state that decays by channel and is changed along one direction: S_t = (Diag(exp(g_t)) + b_t a_tᵀ) S_{t-1} + k_t v_tᵀ.

o_t = S_tᵀ q_t: a transition that is diagonal plus low-rank, the op of RWKV-7 (2503.14456). Letters: b batch, h heads,
t time, k and v widths, n chunks of c tokens.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.kernels.dispatch import kernel_serves
from hybridlab.ops.linear.affine_scan import diagonal_affine_scan
from hybridlab.ops.linear.channel_decay import channel_decay, in_chunks
from hybridlab.ops.linear.channel_recurrence import channel_recurrence_by_kernel
from hybridlab.ops.linear.triangular import solve_unit_lower
from hybridlab.ops.precision import accumulation_dtype, autocast_off


def recurrent_diagonal_plus_low_rank(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    a: Float[Tensor, "b h t k"],
    b: Float[Tensor, "b h t k"],
    log_decay: Float[Tensor, "b h t k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Step through the recurrence: the definition of the op."""
    with autocast_off(v):
        dtype = accumulation_dtype(v)
        queries, keys, values, readers, writers = (x.to(dtype) for x in (q, k, v, a, b))
        decay = log_decay.to(dtype).exp()
        if state is None:
            state = values.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1])
        outputs = []
        for i in range(v.shape[2]):
            read = (readers[:, :, i, :, None] * state).sum(-2)
            changed = decay[:, :, i, :, None] * state + writers[:, :, i, :, None] * read[:, :, None, :]
            state = changed + keys[:, :, i, :, None] * values[:, :, i, None, :]
            outputs.append((queries[:, :, i, :, None] * state).sum(-2))
        return torch.stack(outputs, dim=2).to(v.dtype), state


def chunked_diagonal_plus_low_rank(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    a: Float[Tensor, "b h t k"],
    b: Float[Tensor, "b h t k"],
    log_decay: Float[Tensor, "b h t k"],
    state: Float[Tensor, "b h k v"] | None = None,
    chunk: int = 64,
    safe: int = 1,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Give what `recurrent_diagonal_plus_low_rank` gives in O(t·chunk), for any t and log_decay <= 0.

    `chunk` is a power of two, and so is `safe`: see `channel_decay`. Token i reads z_i = S_{i-1}ᵀ a_i. Within a chunk
    that starts from S these are (I - B) Z = A S + K V, with A the a_i as decayed since the chunk's start, and B and K the
    decayed products of a_i with earlier b_j and k_j. So a chunk is an affine map of its state, and its outputs are one
    too, as in the delta rules; GPU kernels step through chunks of their own size instead. Matrix products are in the dtype
    of the inputs; decays, B, K and the inverse, the scan and the state in float32 at least.
    """
    with autocast_off(v):
        t, width, dtype = v.shape[2], k.shape[-1], accumulation_dtype(v)
        if kernel_serves(v, width):
            return channel_recurrence_by_kernel(q, a, b, k, v, log_decay, state)
        q, k, v, a, b, log_decay = in_chunks(chunk, q, k, v, a, b, log_decay.to(dtype))
        readers = torch.stack([q * log_decay.exp(), a.to(dtype)], dim=-2)  # what they see of the state before them
        own_b, own_k = (q * b).sum(-1), (q * k).sum(-1)
        scores, readers, writers, total = channel_decay(readers, torch.stack([b, k], dim=-2).to(dtype), log_decay, safe)
        (query_b, query_k), (a_b, a_k) = (pair.unbind(-3) for pair in scores.unbind(-4))
        query, reader = readers.unbind(-2)
        b_end, k_end = writers.to(v.dtype).unbind(-2)
        read = solve_unit_lower(-a_b, torch.cat([reader.to(v.dtype), a_k.to(v.dtype) @ v], dim=-1))
        # What each token writes, as an affine map of the chunk's first state: first along b, then along k.
        in_state, from_state = (b_end.mT @ read).split((width, v.shape[-1]), dim=-1)
        in_outputs, from_outputs = ((query_b.to(v.dtype) + torch.diag_embed(own_b)) @ read).split(
            (width, v.shape[-1]), dim=-1
        )
        states, last = diagonal_affine_scan(total.exp(), in_state, from_state + k_end.mT @ v, state)
        within = from_outputs + (query_k.to(v.dtype) + torch.diag_embed(own_k)) @ v
        o = (query.to(v.dtype) + in_outputs) @ states.to(v.dtype) + within
        return o.flatten(2, 3)[:, :, :t], last
