"""The recurrence of linear attention and of the delta rules in chunks, by GPU kernels, for the ops that share it.

Letters: b batch, h heads, g groups of heads that share queries and keys, n chunks of c = 64 tokens, k and v widths.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.kernels.launch import compiled_at_once
from hybridlab.ops.kernels.padding import kernel_width, rounded_up, widened

CHUNK = 64
ALIGNMENT = 16  # columns: where each row starts at a multiple of so many, a thread loads several at once


@compiled_at_once
def recurrence_by_kernel(
    q: Float[Tensor, "b g n c k"],
    k: Float[Tensor, "b g n c k"],
    u: Float[Tensor, "b h n c v"],
    w: Float[Tensor, "b h n c k"] | None,
    left: Float[Tensor, "b h n c"] | None,
    state: Float[Tensor, "b h k v"] | None,
) -> tuple[Float[Tensor, "b h n*c v"], Float[Tensor, "b h k v"]]:
    """Step through o_t = S_tᵀ q_t, where each chunk from a state S adds k_t (u_t - Sᵀ w_t)ᵀ to it; return S after the last.

    `left` is the log decay of the state from the chunk's start to each token, itself included, and weighs all that is
    read and written; None: nothing is forgotten. Without W nothing is taken away. Half precision but for `left` and the
    states, which are in float32.
    """
    from hybridlab.ops.kernels.chunk_recurrence import chunk_recurrence

    (b, h, _, _, width), keys = u.shape, k.shape[-1]
    rows, columns = kernel_width(keys), rounded_up(width, ALIGNMENT)
    if state is None:
        state = torch.zeros(b, h, rows, columns, dtype=torch.float32, device=u.device)
    q, k, u = widened(q.to(u.dtype), rows), widened(k.to(u.dtype), rows), widened(u, columns)
    w = None if w is None else widened(w, rows)
    q, k, values = (x.flatten(2, 3).flatten(0, 1) for x in (q, k, u))
    removed, decay = (None if x is None else x.flatten(2, 3).flatten(0, 1) for x in (w, left))
    o, last, _, _ = chunk_recurrence(q, k, values, removed, decay, widened(state.float(), columns, rows).flatten(0, 1))
    return o[..., :width].unflatten(0, (b, h)), last[:, :keys, :width].unflatten(0, (b, h))
