"""The delta rule, with or without decay: S_t = exp(g_t) (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ, o_t = S_tᵀ q_t.

Before k_t v_tᵀ is added, the share β_t of what the state returns for k_t is taken away (DeltaNet, 2406.06484; with
decay Gated DeltaNet, 2412.06464). Letters: b batch, h heads, t time, k and v widths, n chunks of c tokens.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.kernels.dispatch import kernel_serves
from hybridlab.ops.kernels.launch import compiled_at_once
from hybridlab.ops.kernels.padding import by_parts_of_values, kernel_width, parts_of, widened
from hybridlab.ops.linear.affine_scan import diagonal_affine_scan
from hybridlab.ops.linear.chunk_recurrence import CHUNK, recurrence_by_kernel
from hybridlab.ops.linear.chunks import in_chunks
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
    """Step through the recurrence: the definition of the op. A log_decay of None is 0: nothing is forgotten."""
    with autocast_off(v):
        dtype = accumulation_dtype(v)
        queries, keys, values, strengths = (x.to(dtype) for x in (q, k, v, beta))
        decay = torch.ones_like(strengths) if log_decay is None else log_decay.to(dtype).exp()
        if state is None:
            state = values.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1])
        outputs = []
        for i in range(v.shape[2]):
            state, key = decay[:, :, i, None, None] * state, keys[:, :, i, :, None]
            returned = (key * state).sum(-2)
            change = strengths[:, :, i, None] * (values[:, :, i] - returned)
            state = state + key * change[:, :, None, :]
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
    """Give what `recurrent_delta_rule` gives in O(t·chunk), for any t; |k_t|² β_t <= 2 and log_decay <= 0.

    A chunk from a state S adds Kᵀ(U - W S), with [W | U] = (I + A)⁻¹ diag(β) [K | V] and A the strictly lower part of
    diag(β) K Kᵀ (the WY form, 2406.06484). So it is an affine map of the state, and its outputs one too: what their
    matrices need is batched over all chunks, and a scan of the maps gives the states between them; GPU kernels step through
    chunks of their own size instead. With decay, each product of two tokens is weighted by what is left of the earlier one
    at the later.

    Matrix products are in the dtype of the inputs; decays, the inverse and K Kᵀ in it, the scan and the state in
    float32 at least.
    """
    with autocast_off(v):
        (b, h, t, width), dtype = v.shape, accumulation_dtype(v)
        if kernel_serves(v, k.shape[-1], b * h * parts_of(width)):
            return by_parts_of_values(_by_kernels, v, state, q, k, beta, log_decay)
        chunk = min(chunk, t)
        q, k, v = (in_chunks(x, chunk) for x in (q, k, v))
        beta = in_chunks(beta.to(dtype)[..., None], chunk)
        left = None if log_decay is None else in_chunks(log_decay.to(dtype)[..., None], chunk).cumsum(-2)
        weights = _weights(left, chunk, dtype, q.device)
        # Of keys that are alike, the inverse is made of small differences: rounded products would double its error.
        keys = k.to(dtype)
        inverse = unit_lower_inverse(beta * (keys @ keys.mT) * weights)
        wy = (inverse * beta.mT).to(v.dtype) @ torch.cat([_decayed(k, left), v], dim=-1)
        w, u = wy.split((k.shape[-1], v.shape[-1]), dim=-1)
        until_end, end = (None, None) if left is None else (left[..., -1:, :] - left, left[..., -1:, :])
        writers, scores = _decayed(k, until_end).mT, ((q @ k.mT) * weights).to(v.dtype)
        # What a chunk's tokens write into the state at its end, and what its queries read of them: of the state at its
        # start, and without it.
        forgotten, added = writers @ w, writers @ u
        unread, read = scores @ w, scores @ u
        kept = torch.ones_like(beta[..., 0, :]) if end is None else end.squeeze(-2).exp()
        states, last = diagonal_affine_scan(kept, -forgotten, added, state)
        o = (_decayed(q, left) - unread) @ states.to(v.dtype) + read
        return o.flatten(2, 3)[:, :, :t], last


@compiled_at_once
def _by_kernels(
    v: Tensor, state: Tensor | None, q: Tensor, k: Tensor, beta: Tensor, log_decay: Tensor | None
) -> tuple[Tensor, Tensor]:
    from hybridlab.ops.kernels.wy_form import wy_form

    (t, width), size, dtype = v.shape[2:], k.shape[-1], accumulation_dtype(v)
    q = in_chunks(q, CHUNK)
    k, v = (in_chunks(widened(x, kernel_width(x.shape[-1])), CHUNK) for x in (k, v))
    beta = in_chunks(beta.to(dtype)[..., None], CHUNK)[..., 0]
    left = None if log_decay is None else in_chunks(log_decay.to(dtype)[..., None], CHUNK)[..., 0].cumsum(-1)
    decay = torch.zeros_like(beta) if left is None else left
    w, u, _ = wy_form(*(x.flatten(0, 2) for x in (k, v, beta, decay)))
    o, last = recurrence_by_kernel(q, k, u.view_as(v), w.view_as(k), left, state)
    return o[:, :, :t, :width], last[:, :, :size, :width]


def _weights(left: Tensor | None, chunk: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return what is left of each token of a chunk at each later one (and at itself); above the diagonal 0."""
    if left is None:
        return torch.ones(chunk, chunk, dtype=dtype, device=device).tril()
    future = torch.ones(chunk, chunk, dtype=torch.bool, device=device).triu(1)
    # Masked before the exponential: what lies above the diagonal may overflow, and inf · 0 is no gradient.
    # In place, because this is the largest tensor of the op.
    return (left - left.mT).masked_fill_(future, -torch.inf).exp_()


def _decayed(x: Tensor, log: Tensor | None) -> Tensor:
    return x if log is None else (x * log.exp()).to(x.dtype)


def unit_vectors(x: Float[Tensor, "*b k"]) -> Float[Tensor, "*b k"]:
    """Return x / √(|x|² + 1e-6), reckoned in float32 at least: keys of length 1 make β the share that is replaced."""
    wide = x.to(accumulation_dtype(x))
    return (wide * (wide.square().sum(-1, keepdim=True) + 1e-6).rsqrt()).to(x.dtype)
