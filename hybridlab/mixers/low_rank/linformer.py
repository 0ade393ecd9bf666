"""Linformer: attention to a fixed number of sums over the sequence."""

from jaxtyping import Float
from torch import Tensor, empty, nn

from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.projections import join_heads, split_heads
from hybridlab.ops.attention.fused_attention import fused_attention
from hybridlab.ops.attention.position_table import position_rows
from hybridlab.validate import divides, whole


class Linformer(Mixer):
    """o = softmax(Q (EᵀK)ᵀ / √k) FᵀV: `rank` learned sums replace the keys and values.

    Bidirectional only: every sum contains the whole sequence. Positions enter through E and F
    alone, which have `max_length` positions and are shared by the heads. A shorter sequence uses
    their first positions, as in the paper. For a longer one, which the paper does not consider,
    they are interpolated linearly to its length and scaled to keep their integral. The paper does
    not say how E and F start; here, so that the sums start at the size of one of their terms.
    """

    kind = "low-rank"
    paper = "Wang et al. 2020, 2006.04768"
    causal = False
    bounded_state = False
    free_sizes = ("rank",)

    def __init__(self, *, width: int, heads: int = 4, rank: int = 128, max_length: int = 512) -> None:
        super().__init__()
        whole(heads=heads, rank=rank, max_length=max_length)
        divides(width, "the width", heads=heads)
        self.head_width = width // heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        # Sums of max_length independent terms start at the size of one of them.
        self.key_sums = tag(nn.Parameter(empty(max_length, rank).normal_(std=max_length**-0.5)), initialise=False)
        self.value_sums = tag(nn.Parameter(empty(max_length, rank).normal_(std=max_length**-0.5)), initialise=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Attend from each token to the sums."""
        # Eᵀ(xW) = (Eᵀx)W: summed first, only `rank` tokens need mapping to keys and values.
        k = split_heads(self.key(_sums(self.key_sums, x)), self.head_width)
        v = split_heads(self.value(_sums(self.value_sums, x)), self.head_width)
        q = split_heads(self.query(x), self.head_width)
        return self.out(join_heads(fused_attention(q, k, v)))


def _sums(table: Float[Tensor, "l r"], x: Float[Tensor, "b t d"]) -> Float[Tensor, "b r d"]:
    rows = position_rows(table, x.shape[1]).to(x.dtype)
    # A view of the table for each sequence: PyTorch would copy x, transposed, for a broadcast one.
    return rows.mT.expand(len(x), -1, -1) @ x
