"""A recurrence with a diagonal plus rank-1 transition.

S_t = (Diag(exp(g_t)) + b_t a_tᵀ) S_{t-1} + k_t v_tᵀ, o_t = S_tᵀ q_t: the op of RWKV-7 (2503.14456).
Letters: b batch, h heads, t time, k and v widths, n chunks of c tokens.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.kernels.dispatch import can_use_kernel
from hybridlab.ops.linear.affine_scan import diagonal_affine_scan
from hybridlab.ops.linear.channel_decay import channel_decay, split_power_of_two_chunks
from hybridlab.ops.linear.channel_recurrence import run_channel_recurrence
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
    """Compute the op from its definition, step by step."""
    with autocast_off(v):
        dtype = accumulation_dtype(v)
        queries, keys, values, read_vectors, write_vectors = (x.to(dtype) for x in (q, k, v, a, b))
        decay = log_decay.to(dtype).exp()
        if state is None:
            state = values.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1])
        outputs = []
        for i in range(v.shape[2]):
            z = (read_vectors[:, :, i, :, None] * state).sum(-2)
            changed = decay[:, :, i, :, None] * state + write_vectors[:, :, i, :, None] * z[:, :, None, :]
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
    safe_block: int = 1,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Compute `recurrent_diagonal_plus_low_rank` in O(t·chunk), for any t and log_decay <= 0.

    `chunk` and `safe_block` are powers of two (see `channel_decay` for `safe_block`). Token i reads
    z_i = S_{i-1}ᵀ a_i. Within a chunk that starts from state S, these satisfy (I - B) Z = A S + K
    V, where A holds the a_i decayed from the chunk's start, and B and K the decayed products of a_i
    with earlier b_j and k_j. So the chunk's final state and its outputs are affine maps of S, as in
    the delta rules; GPU kernels step through chunks of their own size instead. Matrix products are
    in the dtype of the inputs. Decays, B, K and the inverse, the scan and the state are in at least
    float32.
    """
    with autocast_off(v):
        t, key_width, dtype = v.shape[2], k.shape[-1], accumulation_dtype(v)
        if can_use_kernel(v, key_width):
            return run_channel_recurrence(q, a, b, k, v, log_decay, state)
        q, k, v, a, b, log_decay = split_power_of_two_chunks(chunk, q, k, v, a, b, log_decay.to(dtype))
        query_a_pairs = torch.stack(
            [q * log_decay.exp(), a.to(dtype)], dim=-2
        )  # both read the state before their token
        own_b_scores, own_k_scores = (q * b).sum(-1), (q * k).sum(-1)
        scores, query_a_pairs, decayed_b_and_k, total_log_decay = channel_decay(
            query_a_pairs, torch.stack([b, k], dim=-2).to(dtype), log_decay, safe_block
        )
        (query_b_scores, query_k_scores), (a_b_scores, a_k_scores) = (pair.unbind(-3) for pair in scores.unbind(-4))
        decayed_query, decayed_a = query_a_pairs.unbind(-2)
        decayed_b, decayed_k = decayed_b_and_k.to(v.dtype).unbind(-2)
        z = solve_unit_lower(-a_b_scores, torch.cat([decayed_a.to(v.dtype), a_k_scores.to(v.dtype) @ v], dim=-1))
        # What the tokens write along b, as an affine map of the chunk's initial state; writes along
        # k do not depend on it.
        state_transition, state_increment = (decayed_b.mT @ z).split((key_width, v.shape[-1]), dim=-1)
        output_transition, output_increment = ((query_b_scores.to(v.dtype) + torch.diag_embed(own_b_scores)) @ z).split(
            (key_width, v.shape[-1]), dim=-1
        )
        states, final_state = diagonal_affine_scan(
            total_log_decay.exp(), state_transition, state_increment + decayed_k.mT @ v, state
        )
        local_outputs = output_increment + (query_k_scores.to(v.dtype) + torch.diag_embed(own_k_scores)) @ v
        o = (decayed_query.to(v.dtype) + output_transition) @ states.to(v.dtype) + local_outputs
        return o.flatten(2, 3)[:, :, :t], final_state
