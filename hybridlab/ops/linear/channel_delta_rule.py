"""The delta rule with a decay per channel of the key.

S_t = (I - β_t k_t k_tᵀ) Diag(exp(g_t)) S_{t-1} + β_t k_t v_tᵀ, o_t = S_tᵀ q_t:
the op of Kimi Delta Attention (2510.26692).
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


def recurrent_channel_delta_rule(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    beta: Float[Tensor, "b h t"],
    log_decay: Float[Tensor, "b h t k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Compute the op from its definition, step by step."""
    with autocast_off(v):
        dtype = accumulation_dtype(v)
        queries, keys, values, betas = (x.to(dtype) for x in (q, k, v, beta))
        decay = log_decay.to(dtype).exp()
        if state is None:
            state = values.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1])
        outputs = []
        for i in range(v.shape[2]):
            state, key = decay[:, :, i, :, None] * state, keys[:, :, i, :, None]
            update = betas[:, :, i, None] * (values[:, :, i] - (key * state).sum(-2))
            state = state + key * update[:, :, None, :]
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
    """Compute `recurrent_channel_delta_rule` in O(t·chunk), for any t and log_decay <= 0.

    The chunk length is a power of two. Token i writes β_i k_i u_iᵀ, where u_i is v_i minus the
    value that the decayed state holds for k_i. Within a chunk that starts from state S, these
    satisfy (I + A) U = V - K S, where A holds the decayed products of keys with the earlier β_j
    k_j, and K the keys decayed from the chunk's start (the WY form, 2406.06484). So the chunk's
    final state and its outputs are affine maps of S. Their matrices are computed for all chunks at
    once, and a scan of the maps gives the states between chunks; GPU kernels step through chunks of
    their own size instead. Matrix products are in the dtype of the inputs. Decays, A and its
    inverse, the scan and the state are in at least float32.
    """
    with autocast_off(v):
        t, key_width, dtype = v.shape[2], k.shape[-1], accumulation_dtype(v)
        # If keys are similar, the inverse consists of small differences, so its inputs are not
        # rounded.
        beta_keys = k * beta.to(dtype)[..., None]
        if can_use_kernel(v, key_width):
            return run_channel_recurrence(q, -k, beta_keys, None, v, log_decay, state)
        q, k, v, beta_keys, log_decay = split_power_of_two_chunks(chunk, q, k, v, beta_keys, log_decay.to(dtype))
        query_key_pairs = (
            torch.stack([q, k], dim=-2) * log_decay.exp()[..., None, :]
        )  # they read the state before their token
        scores, query_key_pairs, decayed_beta_keys, total_log_decay = channel_decay(
            query_key_pairs, beta_keys[..., None, :], log_decay
        )
        query_scores, key_scores = scores.squeeze(-3).unbind(-3)
        own_scores = (q * beta_keys).sum(-1).to(v.dtype)
        decayed_query, decayed_key = query_key_pairs.unbind(-2)
        wy = solve_unit_lower(key_scores, torch.cat([-decayed_key.to(v.dtype), v], dim=-1))
        # A chunk maps its initial state S to (decay + state_transition) S + state_increment, and to
        # the outputs (decayed queries + output_transition) S + local_outputs.
        widths = (key_width, v.shape[-1])
        state_transition, state_increment = (decayed_beta_keys.squeeze(-2).to(v.dtype).mT @ wy).split(widths, dim=-1)
        output_transition, local_outputs = ((query_scores.to(v.dtype) + torch.diag_embed(own_scores)) @ wy).split(
            widths, dim=-1
        )
        states, final_state = diagonal_affine_scan(total_log_decay.exp(), state_transition, state_increment, state)
        o = (decayed_query.to(v.dtype) + output_transition) @ states.to(v.dtype) + local_outputs
        return o.flatten(2, 3)[:, :, :t], final_state
