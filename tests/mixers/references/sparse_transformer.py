"""The strided pattern of Sparse Transformers, as a mask."""

from typing import Any

from tests.mixers.masked_attention import MaskedAttention


class SparseTransformer(MaskedAttention):
    mixer = "strided"
    source = "1904.10509, strided attention: A⁽¹⁾ and A⁽²⁾"
    choices = "both parts in each head, as in the paper's merged heads; rotary positions; a form that looks ahead"
    cases = (
        {"stride": 1},
        {"stride": 5, "heads": 2, "causal": False},
        {"stride": 16, "kv_heads": 2, "qk_norm": True},
        {"stride": 16, "kv_heads": 1, "rope": None, "causal": False},
        {"stride": 80},
    )

    def __init__(self, *, stride: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.stride = stride

    def sees(self, i: int, j: int) -> bool:
        """Merge A⁽¹⁾, the latest tokens up to the stride before i, and A⁽²⁾, every stride-th."""
        if j > i:
            return not self.causal and self.sees(j, i)
        return j in range(max(0, i - self.stride), i + 1) or (i - j) % self.stride == 0
