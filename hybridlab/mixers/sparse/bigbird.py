"""Softmax attention to a window, to the first tokens and to random blocks."""

from typing import Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hybridlab.mixers.parts.softmax_attention import CachedAttention, SharedSettings
from hybridlab.ops.attention.bigbird_attention import bigbird_attention, bigbird_mask
from hybridlab.ops.attention.random_choice import WORD, random_choice
from hybridlab.validate import whole


class Bigbird(CachedAttention):
    """o_t = Σ_j softmax_j(q_t·k_j / √k) v_j over the j ≤ t in the blocks that the block of t sees.

    A block of `block` tokens sees itself and the window_blocks-1 blocks before it, the first
    `global_blocks` of the sequence, and `random_blocks` of those between, which each head draws for
    itself. The draw is a hash of the seed, the head and the block's index, so that it is the same
    at any sequence length and in every decoding step. The seed is saved in the checkpoint. A seed
    of null is drawn when the mixer is built, so that each layer has its own. Later blocks can draw
    any past block, so decoding keeps all of them.

    Bidirectional: the window reaches as many blocks ahead, random blocks are drawn from all other
    full blocks, and the global blocks see all tokens.
    """

    kind = "sparse"
    paper = "Zaheer et al. 2020, 2007.14062"
    bounded_state = False
    free_sizes = ("random_blocks",)

    seed: Int[Tensor, ""]

    def __init__(
        self,
        *,
        block: int = 64,
        window_blocks: int = 2,
        global_blocks: int = 2,
        random_blocks: int = 3,
        seed: int | None = None,
        **shared: Unpack[SharedSettings],
    ) -> None:
        super().__init__(**shared)
        whole(block=block, window_blocks=window_blocks, global_blocks=global_blocks, random_blocks=random_blocks)
        whole(least=0, most=WORD, null="drawn", seed=seed)
        self.block = block
        self.window_blocks, self.global_blocks, self.random_blocks = window_blocks, global_blocks, random_blocks
        self.register_buffer("seed", torch.randint(WORD + 1, ()) if seed is None else torch.tensor(seed))

    def _attend(
        self, q: Float[Tensor, "b h n k"], k: Float[Tensor, "b g t k"], v: Float[Tensor, "b g t k"]
    ) -> Float[Tensor, "b n d"]:
        t = k.shape[2]
        chosen = self._choose((t - q.shape[2]) // self.block, t)
        blocks = self.block, self.window_blocks, self.global_blocks
        return self._write(bigbird_attention(q, k, v, chosen, *blocks, causal=self.causal))

    def _visible(self, at: Int[Tensor, " n"], keys: Int[Tensor, " t"]) -> Bool[Tensor, "h n t"]:
        chosen = self._choose(0, len(keys))[:, at // self.block]
        blocks = self.block, self.window_blocks, self.global_blocks
        return bigbird_mask(at, keys, chosen, *blocks, causal=self.causal)

    def _choose(self, start: int, t: int) -> Int[Tensor, "h l random"]:
        """Draw the random blocks of each block of queries from `start` on."""
        own = torch.arange(start, -(-t // self.block), device=self.seed.device)
        before = (own - self.window_blocks + 1 - self.global_blocks).clamp(min=0)
        # The candidates between the global blocks and the window and those after the window are
        # numbered consecutively.
        skipped = torch.zeros_like(own)
        counts = before
        if not self.causal:
            after = (own + self.window_blocks).clamp(min=self.global_blocks)
            skipped = after - before
            counts = before + (t // self.block - after).clamp(min=0)
        heads = self.out.in_features // self.projections.head_width
        number = random_choice(self.seed, heads, own, counts, self.random_blocks)
        index = torch.where(number < before[:, None], self.global_blocks + number, skipped[:, None] + number)
        return torch.where(number < 0, -1, index)
