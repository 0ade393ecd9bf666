"""Linear attention in which each token sees the whole row: o_t = Σ_j (q_t·k_j) v_j.

Letters: b batch, h heads, t time, k and v widths.
"""

from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.linear.chunks import in_chunks
from hybridlab.ops.precision import accumulation_dtype, autocast_off

# So many tokens are summed up in the dtype of the inputs before the sums are added in float32.
CHUNK = 256


def dense_bidirectional_linear_attention(
    q: Float[Tensor, "b h t k"], k: Float[Tensor, "b h t k"], v: Float[Tensor, "b h t v"]
) -> Float[Tensor, "b h t v"]:
    """Weigh every value by q·k, in a matrix of t times t: the definition of the op."""
    with autocast_off(v):
        queries, keys, values = (x.to(accumulation_dtype(v)) for x in (q, k, v))
        return ((queries @ keys.mT) @ values).to(v.dtype)


def bidirectional_linear_attention(
    q: Float[Tensor, "b h t k"], k: Float[Tensor, "b h t k"], v: Float[Tensor, "b h t v"]
) -> Float[Tensor, "b h t v"]:
    """Give what `dense_bidirectional_linear_attention` gives in O(t): q times the sum Σ k vᵀ over the row."""
    with autocast_off(v):
        chunk = min(CHUNK, v.shape[2])
        sums = (in_chunks(k, chunk).mT @ in_chunks(v, chunk)).sum(2, dtype=accumulation_dtype(v))
        return q @ sums.to(v.dtype)
