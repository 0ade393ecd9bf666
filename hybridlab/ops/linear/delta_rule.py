"""The delta rule, with or without decay.

S_t = exp(g_t) (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ, o_t = S_tᵀ q_t.

Before k_t v_tᵀ is written, the fraction β_t of the value that the state holds for k_t is erased
(DeltaNet, 2406.06484; with decay: Gated DeltaNet, 2412.06464).
Letters: b batch, h heads, t time, k and v widths, n chunks of c tokens.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.kernels.dispatch import can_use_kernel
from hybridlab.ops.kernels.launch import compiled_at_once
from hybridlab.ops.kernels.padding import CHUNK, kernel_width, num_splits, pad_to, split_over_values
from hybridlab.ops.linear.affine_scan import diagonal_affine_scan
from hybridlab.ops.linear.chunk_recurrence import run_chunk_recurrence
from hybridlab.ops.linear.chunks import split_chunks
from hybridlab.ops.linear.triangular_inverse import unit_lower_inverse
from hybridlab.ops.precision import accumulation_dtype, autocast_off


def recurrent_delta_rule(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    beta: Float[Tensor, "b h t"],
    log_decay: Float[Tensor, "b h t"] | None = None,
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Compute the op from its definition, step by step. A `log_decay` of None means no decay."""
    with autocast_off(v):
        dtype = accumulation_dtype(v)
        queries, keys, values, betas = (x.to(dtype) for x in (q, k, v, beta))
        decay = torch.ones_like(betas) if log_decay is None else log_decay.to(dtype).exp()
        if state is None:
            state = values.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1])
        outputs = []
        for i in range(v.shape[2]):
            state, key = decay[:, :, i, None, None] * state, keys[:, :, i, :, None]
            retrieved = (key * state).sum(-2)
            update = betas[:, :, i, None] * (values[:, :, i] - retrieved)
            state = state + key * update[:, :, None, :]
            outputs.append((queries[:, :, i, :, None] * state).sum(-2))
        return torch.stack(outputs, dim=2).to(v.dtype), state


def chunked_delta_rule(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    beta: Float[Tensor, "b h t"],
    log_decay: Float[Tensor, "b h t"] | None = None,
    state: Float[Tensor, "b h k v"] | None = None,
    chunk: int = 64,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Compute `recurrent_delta_rule` in O(t·chunk), for any t.

    Requires |k_t|² β_t <= 2 and log_decay <= 0.

    A chunk that starts from state S adds Kᵀ(U - W S), where [W | U] = (I + A)⁻¹ diag(β) [K | V] and
    A is the strictly lower part of diag(β) K Kᵀ (the WY form, 2406.06484). So the chunk's final
    state and its outputs are affine maps of S. Their matrices are computed for all chunks at once,
    and a scan of the maps gives the states between chunks; GPU kernels step through chunks of their
    own size instead. With decay, each product of two tokens is weighted by the decay between them.

    Matrix products are in the dtype of the inputs. Decays, K Kᵀ and the inverse, the scan and the
    state are in at least float32.
    """
    with autocast_off(v):
        (b, h, t, value_width), dtype = v.shape, accumulation_dtype(v)
        if can_use_kernel(v, k.shape[-1], b * h * num_splits(value_width)):
            return split_over_values(_run_kernels, v, state, q, k, beta, log_decay)
        chunk = min(chunk, t)
        q, k, v = (split_chunks(x, chunk) for x in (q, k, v))
        beta = split_chunks(beta.to(dtype)[..., None], chunk)
        cum_log_decay = None if log_decay is None else split_chunks(log_decay.to(dtype)[..., None], chunk).cumsum(-2)
        decay_matrix = _decay_matrix(cum_log_decay, chunk, dtype, q.device)
        # If keys are similar, the inverse consists of small differences: rounded products would
        # double its error.
        keys = k.to(dtype)
        inverse = unit_lower_inverse(beta * (keys @ keys.mT) * decay_matrix)
        wy = (inverse * beta.mT).to(v.dtype) @ torch.cat([_scale_by_exp(k, cum_log_decay), v], dim=-1)
        w, u = wy.split((k.shape[-1], v.shape[-1]), dim=-1)
        log_decay_to_end = None if cum_log_decay is None else cum_log_decay[..., -1:, :] - cum_log_decay
        chunk_log_decay = None if cum_log_decay is None else cum_log_decay[..., -1:, :]
        decayed_keys, scores = _scale_by_exp(k, log_decay_to_end).mT, ((q @ k.mT) * decay_matrix).to(v.dtype)
        # A chunk maps its initial state S to the state chunk_decay S - state_erase S + state_write,
        # and to the outputs (decayed queries - output_erase) S + output_write.
        state_erase, state_write = decayed_keys @ w, decayed_keys @ u
        output_erase, output_write = scores @ w, scores @ u
        chunk_decay = torch.ones_like(beta[..., 0, :]) if chunk_log_decay is None else chunk_log_decay.squeeze(-2).exp()
        states, final_state = diagonal_affine_scan(chunk_decay, -state_erase, state_write, state)
        o = (_scale_by_exp(q, cum_log_decay) - output_erase) @ states.to(v.dtype) + output_write
        return o.flatten(2, 3)[:, :, :t], final_state


@compiled_at_once
def _run_kernels(
    v: Tensor, state: Tensor | None, q: Tensor, k: Tensor, beta: Tensor, log_decay: Tensor | None
) -> tuple[Tensor, Tensor]:
    from hybridlab.ops.kernels.wy_form import wy_form

    (t, value_width), key_width, dtype = v.shape[2:], k.shape[-1], accumulation_dtype(v)
    q, k, v = (split_chunks(pad_to(x, kernel_width(x.shape[-1])), CHUNK) for x in (q, k, v))
    state = None if state is None else pad_to(state, v.shape[-1], k.shape[-1])
    beta = split_chunks(beta.to(dtype)[..., None], CHUNK)[..., 0]
    cum_log_decay = (
        None if log_decay is None else split_chunks(log_decay.to(dtype)[..., None], CHUNK)[..., 0].cumsum(-1)
    )
    wy_log_decay = torch.zeros_like(beta) if cum_log_decay is None else cum_log_decay
    w, u, _ = wy_form(*(x.flatten(0, 2) for x in (k, v, beta, wy_log_decay)))
    o, final_state = run_chunk_recurrence(q, k, u.view_as(v), w.view_as(k), cum_log_decay, state)
    return o[:, :, :t, :value_width], final_state[:, :, :key_width, :value_width]


def _decay_matrix(cum_log_decay: Tensor | None, chunk: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the decay from each token of a chunk (columns) to itself and later ones (rows).

    Entries above the diagonal are 0.
    """
    if cum_log_decay is None:
        return torch.ones(chunk, chunk, dtype=dtype, device=device).tril()
    future = torch.ones(chunk, chunk, dtype=torch.bool, device=device).triu(1)
    # The mask precedes the exponential: entries above the diagonal may overflow, and inf · 0 has no
    # gradient. In place, because this is the op's largest tensor.
    return (cum_log_decay - cum_log_decay.mT).masked_fill_(future, -torch.inf).exp_()


def _scale_by_exp(x: Tensor, log_scale: Tensor | None) -> Tensor:
    return x if log_scale is None else (x * log_scale.exp()).to(x.dtype)


def l2_normalise(x: Float[Tensor, "*b k"]) -> Float[Tensor, "*b k"]:
    """Return x / √(|x|² + 1e-6), computed in at least float32.

    With unit keys, β is the fraction of the stored value that is replaced.
    """
    wide = x.to(accumulation_dtype(x))
    return (wide * (wide.square().sum(-1, keepdim=True) + 1e-6).rsqrt()).to(x.dtype)
