"""Run GPU kernels for the chunked recurrence that linear attention and the delta rules share.

Letters: b batch, h heads, g groups of heads that share queries and keys, n chunks of c = 64 tokens,
k and v widths.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.kernels.launch import compiled_at_once
from hybridlab.ops.kernels.padding import kernel_width, pad_to, round_up

ALIGNMENT = 16  # columns: a thread loads several elements at once if every row starts at a multiple of this


@compiled_at_once
def run_chunk_recurrence(
    q: Float[Tensor, "b g n c k"],
    k: Float[Tensor, "b g n c k"],
    u: Float[Tensor, "b h n c v"],
    w: Float[Tensor, "b h n c k"] | None,
    cum_log_decay: Float[Tensor, "b h n c"] | None,
    state: Float[Tensor, "b h k v"] | None,
) -> tuple[Float[Tensor, "b h n*c v"], Float[Tensor, "b h k v"]]:
    """Return the outputs o_t = S_tᵀ q_t and the last S of a chunked recurrence.

    Each token of a chunk that starts from S adds k_t (u_t - Sᵀ w_t)ᵀ to the state.

    `cum_log_decay` is the log decay from the chunk's start to each token, that token included; it
    scales reads and writes, and None means no decay. With w None, nothing is subtracted from u.
    Inputs are in half precision, except `cum_log_decay` and the states, which are in float32.
    """
    from hybridlab.ops.kernels.chunk_recurrence import chunk_recurrence

    (b, h, _, _, value_width), key_width = u.shape, k.shape[-1]
    padded_k, padded_v = kernel_width(key_width), round_up(value_width, ALIGNMENT)
    if state is None:
        state = torch.zeros(b, h, padded_k, padded_v, dtype=torch.float32, device=u.device)
    q, k, u = pad_to(q.to(u.dtype), padded_k), pad_to(k.to(u.dtype), padded_k), pad_to(u, padded_v)
    w = None if w is None else pad_to(w, padded_k)
    q, k, u = (x.flatten(2, 3).flatten(0, 1) for x in (q, k, u))
    w, cum_log_decay = (None if x is None else x.flatten(2, 3).flatten(0, 1) for x in (w, cum_log_decay))
    o, final_state, _, _ = chunk_recurrence(
        q, k, u, w, cum_log_decay, pad_to(state.float(), padded_v, padded_k).flatten(0, 1)
    )
    return o[..., :value_width].unflatten(0, (b, h)), final_state[:, :key_width, :value_width].unflatten(0, (b, h))
