"""Linear attention in which each token sees the whole sequence: o_t = Σ_j (q_t·k_j) v_j.

Letters: b batch, h heads, t time, k and v widths.
"""

from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.linear.chunks import split_chunks
from hybridlab.ops.precision import accumulation_dtype, autocast_off

CHUNK = 256  # tokens that are summed in the dtype of the inputs; the chunk sums are added in float32


def dense_bidirectional_linear_attention(
    q: Float[Tensor, "b h t k"], k: Float[Tensor, "b h t k"], v: Float[Tensor, "b h t v"]
) -> Float[Tensor, "b h t v"]:
    """Compute the op from its definition: weight every value by q·k, with a t x t matrix."""
    with autocast_off(v):
        queries, keys, values = (x.to(accumulation_dtype(v)) for x in (q, k, v))
        return ((queries @ keys.mT) @ values).to(v.dtype)


def bidirectional_linear_attention(
    q: Float[Tensor, "b h t k"], k: Float[Tensor, "b h t k"], v: Float[Tensor, "b h t v"]
) -> Float[Tensor, "b h t v"]:
    """Compute `dense_bidirectional_linear_attention` in O(t), as q times the sum of all k vᵀ."""
    with autocast_off(v):
        chunk = min(CHUNK, v.shape[2])
        sums = (split_chunks(k, chunk).mT @ split_chunks(v, chunk)).sum(2, dtype=accumulation_dtype(v))
        return q @ sums.to(v.dtype)
