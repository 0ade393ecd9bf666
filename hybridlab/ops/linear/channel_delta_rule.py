"""The delta rule with a decay per channel of the key: S_t = (I - β_t k_t k_tᵀ) Diag(exp(g_t)) S_{t-1} + β_t k_t v_tᵀ.

o_t = S_tᵀ q_t; the op of Kimi Delta Attention (2510.26692). Letters: b batch, h heads, t time, k and v widths, n chunks
of c tokens.
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


def recurrent_channel_delta_rule(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    beta: Float[Tensor, "b h t"],
    log_decay: Float[Tensor, "b h t k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Step through the recurrence: the definition of the op."""
    with autocast_off(v):
        dtype = accumulation_dtype(v)
        queries, keys, values, strengths = (x.to(dtype) for x in (q, k, v, beta))
        decay = log_decay.to(dtype).exp()
        if state is None:
            state = values.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1])
        outputs = []
        for i in range(v.shape[2]):
            state, key = decay[:, :, i, :, None] * state, keys[:, :, i, :, None]
            change = strengths[:, :, i, None] * (values[:, :, i] - (key * state).sum(-2))
            state = state + key * change[:, :, None, :]
            outputs.append((queries[:, :, i, :, None] * state).sum(-2))
        return torch.stack(outputs, dim=2).to(v.dtype), state


def chunked_channel_delta_rule(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    beta: Float[Tensor, "b h t"],
    log_decay: Float[Tensor, "b h t k"],
    state: Float[Tensor, "b h k v"] | None = None,
    chunk: int = 64,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Give what `recurrent_channel_delta_rule` gives in O(t·chunk), for any t and log_decay <= 0; chunk a power of two.

    Token i writes β_i k_i u_iᵀ, where u_i is v_i less what the decayed state returns for k_i. Within a chunk that starts
    from S these are (I + A) U = V - K S, with A the decayed products of keys and earlier written ones, and K the keys as
    decayed since the chunk's start. So a chunk is an affine map of its state, and its outputs are one too: what their
    matrices need is batched over all chunks, and a scan of the maps gives the states between them (the WY form,
    2406.06484); GPU kernels step through chunks of their own size instead. Matrix products are in the dtype of the inputs;
    decays, A and its inverse, the scan and the state in float32 at least.
    """
    with autocast_off(v):
        t, width, dtype = v.shape[2], k.shape[-1], accumulation_dtype(v)
        # Of keys that are alike, the inverse is made of small differences: what it is made of is not rounded.
        written = k * beta.to(dtype)[..., None]
        if kernel_serves(v, width):
            return channel_recurrence_by_kernel(q, -k, written, None, v, log_decay, state)
        q, k, v, written, log_decay = in_chunks(chunk, q, k, v, written, log_decay.to(dtype))
        readers = torch.stack([q, k], dim=-2) * log_decay.exp()[..., None, :]  # what they see of the state before them
        scores, readers, writers, total = channel_decay(readers, written[..., None, :], log_decay)
        of_query, of_key = scores.squeeze(-3).unbind(-3)
        own = (q * written).sum(-1).to(v.dtype)
        query, key = readers.unbind(-2)
        changes = solve_unit_lower(of_key, torch.cat([-key.to(v.dtype), v], dim=-1))
        # What a chunk's tokens write into its last state, and what its queries read of them: of the first state, and alone.
        sizes = (width, v.shape[-1])
        in_state, added = (writers.squeeze(-2).to(v.dtype).mT @ changes).split(sizes, dim=-1)
        read, own_part = ((of_query.to(v.dtype) + torch.diag_embed(own)) @ changes).split(sizes, dim=-1)
        states, last = diagonal_affine_scan(total.exp(), in_state, added, state)
        o = (query.to(v.dtype) + read) @ states.to(v.dtype) + own_part
        return o.flatten(2, 3)[:, :, :t], last
