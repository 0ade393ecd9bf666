"""BigBird's pattern of blocks, as a mask, with the random blocks drawn in whole numbers."""

from typing import Any

import torch
from torch import Tensor

from tests.mixers.masked_attention import MaskedAttention

WORD = 2**32


class BigBird(MaskedAttention):
    mixer = "bigbird"
    source = "2007.14062, section 2: window, global and random blocks"
    choices = (
        "the global blocks are the first ones, where the authors' code has the first and the last; random blocks by a "
        "hash of seed, head and block, so that they are the same at any length; rotary positions; a causal form"
    )
    cases = (
        {"block": 1, "seed": 0, "heads": 2},
        {"block": 8, "seed": 5, "random_blocks": 2, "causal": False},
        {"block": 5, "seed": WORD - 1, "window_blocks": 1, "global_blocks": 1, "kv_heads": 2, "qk_norm": True},
        {"block": 7, "seed": 3, "window_blocks": 4, "global_blocks": 3, "random_blocks": 5, "rope": None},
        {"block": 7, "seed": 3, "window_blocks": 1, "global_blocks": 1, "random_blocks": 5, "causal": False},
        {"block": 64, "seed": 1},
    )

    def __init__(
        self,
        *,
        block: int,
        seed: int,
        window_blocks: int = 2,
        global_blocks: int = 2,
        random_blocks: int = 3,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.block, self.near, self.first = block, window_blocks, global_blocks
        self.seed, self.num = seed, random_blocks

    def visible(self, q: Tensor, k: Tensor) -> Tensor:
        t = q.shape[2]
        masks = torch.zeros(self.heads, t, t, dtype=torch.bool)
        for head in range(self.heads):
            for own in range(-(-t // self.block)):
                drawn = self._draw(head, own, t)
                tokens = slice(own * self.block, (own + 1) * self.block)
                for j in range(t):
                    other = j // self.block
                    linked = abs(own - other) < self.near or other < self.first or other in drawn
                    masks[head, tokens, j] = linked or (own < self.first and not self.causal)
        return (masks.tril() if self.causal else masks)[None]

    def _draw(self, head: int, own: int, t: int) -> set[int]:
        """Draw some of the whole blocks that a block sees for no other reason (Floyd's method)."""
        last = own - self.near + 1 if self.causal else t // self.block
        candidates = [block for block in range(self.first, last) if abs(block - own) >= self.near]
        drawn: set[int] = set()
        for i in range(self.num):
            largest = len(candidates) - self.num + i
            if largest >= 0:
                number = scrambled(scrambled(scrambled(self.seed ^ head) ^ own) ^ i) % (largest + 1)
                drawn.add(largest if number in drawn else number)
        assert len(drawn) == min(self.num, len(candidates))
        return {candidates[number] for number in drawn}


def scrambled(x: int) -> int:
    x = (x + 0x9E3779B9) % WORD
    x = (x ^ x >> 16) * 0x45D9F3B % WORD
    x = (x ^ x >> 16) * 0x45D9F3B % WORD
    return x ^ x >> 16
