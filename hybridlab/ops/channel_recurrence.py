"""A recurrence with a decay per channel in chunks, by GPU kernels, for the ops that share it.

Letters: b batch, h heads, n chunks of c = 64 tokens, k and v widths.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

CHUNK = 64


def channel_recurrence_by_kernel(
    q: Float[Tensor, "b h n c k"],
    a: Float[Tensor, "b h n c k"] | None,
    b: Float[Tensor, "b h n c k"] | None,
    k: Float[Tensor, "b h n c k"] | None,
    v: Float[Tensor, "b h n c v"],
    log_decay: Float[Tensor, "b h n c k"],
    state: Float[Tensor, "b h k v"] | None,
) -> tuple[Float[Tensor, "b h n*c v"], Float[Tensor, "b h k v"]]:
    """Step through S_t = Diag(exp(g_t)) S_{t-1} + b_t z_tᵀ + k_t v_tᵀ, o_t = S_tᵀ q_t, z_t = S_{t-1}ᵀ a_t; return the last S.

    Without a and b: linear attention. Without k: a reads the state when it has decayed, v is added to what it reads, and b
    writes both, which is the delta rule. Values in half precision, log decays and states in float32.
    """
    from hybridlab.ops.channel_recurrence_triton import channel_recurrence

    (rows, heads, *_, width), size = v.shape, q.shape[-1]
    if state is None:
        state = torch.zeros(rows, heads, size, width, dtype=torch.float32, device=v.device)
    # A program of the kernels has 64 columns.
    keys, values = -size % 64, -width % 64
    q, a, b, k, log_decay = (None if x is None else _flat(x, keys) for x in (q, a, b, k, log_decay.float()))
    start = F.pad(state.float().flatten(0, 1), (0, values, 0, keys))
    o, last, *_ = channel_recurrence(q, a, b, k, _flat(v, values), log_decay, start)
    return o[..., :width].unflatten(0, (rows, heads)), last[:, :size, :width].unflatten(0, (rows, heads))


def _flat(x: Float[Tensor, "b h n c _"], missing: int) -> Float[Tensor, "b*h n*c _"]:
    x = x.flatten(2, 3).flatten(0, 1)
    return F.pad(x, (0, missing)) if missing else x
