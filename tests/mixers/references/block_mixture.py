"""MoBA: attention to the blocks whose mean key a query likes most."""

from typing import Any

import torch
from torch import Tensor

from tests.mixers.masked_attention import MaskedAttention


class BlockMixture(MaskedAttention):
    mixer = "moba"
    source = "2502.13189, equations 2 to 6"
    choices = "`top_k` of 1 is attention within blocks, in the authors' code full attention"
    cases = (
        {"block": 8, "top_k": 1, "heads": 2},
        {"block": 8, "top_k": 4, "kv_heads": 2},
        {"block": 5, "top_k": 2, "kv_heads": 1, "rope": None},
        {"block": 1, "top_k": 9, "heads": 2},
    )

    def __init__(self, *, block: int, top_k: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.block, self.top_k = block, top_k

    def visible(self, q: Tensor, k: Tensor) -> Tensor:
        b, h, t, _ = q.shape
        seen = torch.zeros(b, h, t, t, dtype=torch.bool)
        for row in range(b):
            for head in range(h):
                keys = k[row, head].detach()
                means = [keys[start : start + self.block].mean(0) for start in range(0, t, self.block)]
                gates = (q[row, head].detach() @ torch.stack(means).mT).tolist()
                for i in range(t):
                    own = i // self.block
                    best = sorted(range(own), key=lambda block: -gates[i][block])[: self.top_k - 1]
                    for block in (own, *best):
                        seen[row, head, i, block * self.block : (block + 1) * self.block] = True
        return seen.tril()
