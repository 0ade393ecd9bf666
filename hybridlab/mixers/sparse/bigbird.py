"""Softmax attention to a window, to the first tokens and to random blocks."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.parts.key_values import KeyValues
from hybridlab.mixers.parts.projections import QueryKeyValue, join_heads
from hybridlab.ops.attention.attention_weights import attention_weights
from hybridlab.ops.attention.bigbird_attention import bigbird_attention, bigbird_mask
from hybridlab.ops.attention.random_choice import WORD, random_choice
from hybridlab.validate import whole


class Bigbird(Mixer):
    """o_t = Σ_j softmax_j(q_t·k_j / √k) v_j over the j ≤ t in some blocks of `block` tokens, the same for a whole block.

    A block sees itself and the window_blocks-1 before it, the first `global_blocks` of the row, and `random_blocks` drawn
    from those between, by each head for itself. What is drawn is a hash of the seed, the head and the block's number, so it
    is the same in a row of any length and in each step of decoding. The seed is in the checkpoint. A seed of None is drawn
    when the mixer is made, so that each layer has its own.

    Bidirectional: the window reaches as many blocks ahead, the random blocks are any other whole ones, and the global
    blocks see all tokens. Keys and values may be shared by groups of heads (`kv_heads`); positions are rotary, or none
    (`rope` null).
    """

    kind = "sparse"
    paper = "Zaheer et al. 2020, 2007.14062"
    bounded_state = False
    free_sizes = ("random_blocks",)

    seed: Int[Tensor, ""]

    def __init__(
        self,
        *,
        width: int,
        causal: bool = True,
        heads: int = 4,
        kv_heads: int | None = None,
        block: int = 64,
        window_blocks: int = 2,
        global_blocks: int = 2,
        random_blocks: int = 3,
        seed: int | None = None,
        rope: float | None = 10000.0,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        whole(block=block, window_blocks=window_blocks, global_blocks=global_blocks, random_blocks=random_blocks)
        whole(least=0, most=WORD, null="drawn", seed=seed)
        self.causal, self.heads, self.block = causal, heads, block
        self.window_blocks, self.global_blocks, self.random_blocks = window_blocks, global_blocks, random_blocks
        self.projections = QueryKeyValue(width=width, heads=heads, kv_heads=kv_heads, rope=rope, qk_norm=qk_norm)
        self.out = nn.Linear(width, width, bias=False)
        self.register_buffer("seed", torch.randint(WORD + 1, ()) if seed is None else torch.tensor(seed))

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Attend from each block of tokens to the blocks that it sees."""
        return self._attend(*self.projections(x))

    def attention(self, x: Float[Tensor, "b t d"], at: Int[Tensor, " n"]) -> Float[Tensor, "b h n t"]:
        """Return how much the tokens at some positions read of each token."""
        q, k, _ = self.projections(x)
        keys, chosen = torch.arange(x.shape[1], device=x.device), self._choose(0, x.shape[1])[:, at // self.block]
        blocks = self.block, self.window_blocks, self.global_blocks
        visible = bigbird_mask(at, keys, chosen, *blocks, causal=self.causal)
        return attention_weights(q[:, :, at], k, visible)

    def initial_state(self, batch: int, like: Tensor) -> KeyValues:
        """Return no keys and no values. Any past block may be drawn later, so all are kept."""
        return self.projections.no_past(batch, like)

    def extend(self, x: Float[Tensor, "b n d"], state: KeyValues) -> tuple[Float[Tensor, "b n d"], KeyValues]:
        """Attend from each new token to the blocks that its own one sees, up to itself."""
        q, k, v = self.projections(x, state.past)
        state = state.and_then(k, v)
        return self._attend(q, *state.like(q)), state

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        t = k.shape[2]
        chosen = self._choose((t - q.shape[2]) // self.block, t)
        o = bigbird_attention(q, k, v, chosen, self.block, self.window_blocks, self.global_blocks, causal=self.causal)
        return self.out(join_heads(o))

    def _choose(self, start: int, t: int) -> Int[Tensor, "h l random"]:
        """Draw the random blocks of each block of queries from `start` on."""
        own = torch.arange(start, -(-t // self.block), device=self.seed.device)
        before = (own - self.window_blocks + 1 - self.global_blocks).clamp(min=0)
        # As if those between the global blocks and the window, and those after the window, were in one line.
        skipped = torch.zeros_like(own)
        counts = before
        if not self.causal:
            after = (own + self.window_blocks).clamp(min=self.global_blocks)
            skipped = after - before
            counts = before + (t // self.block - after).clamp(min=0)
        number = random_choice(self.seed, self.heads, own, counts, self.random_blocks)
        place = torch.where(number < before[:, None], self.global_blocks + number, skipped[:, None] + number)
        return torch.where(number < 0, -1, place)
