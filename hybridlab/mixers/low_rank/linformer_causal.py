"""Causal low-rank attention: slots for each finished block, and a window of exact attention."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, arange, nn

from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.projections import QueryKeyValue, join_heads, split_heads
from hybridlab.ops.attention.long_short_attention import block_slots, long_short_attention
from hybridlab.ops.attention.rotary import rotary_turns, rotate
from hybridlab.validate import whole


class LinformerCausalState(NamedTuple):
    """Keys and values of the block not yet finished and of the one before, scores of the former; slots of all others.

    Keys, values and scores are as projected: normalised and turned each time they are read.
    """

    keys: Float[Tensor, "b past d"]
    values: Float[Tensor, "b past d"]
    scores: Float[Tensor, "b own h*r"]
    slot_keys: Float[Tensor, "b h s k"]
    slot_values: Float[Tensor, "b h s k"]


class LinformerCausal(Mixer):
    """o_t = softmax(q_t·[K̄, K] / √k) [V̄, V]: `rank` slots for each earlier block, and the tokens of a window, as they are.

    A slot is Σ_j p_j (k_j, v_j) over the tokens of a finished block of `block` tokens, p = softmax_j(W x_j). The window
    is a token's own block, up to itself, and the one before. One layer norm for keys and values of slots and another for
    those of the window (the paper's DualLN) make their sizes alike. Linformer's own sums contain the whole row, for
    which there is no causal form. The state, and the time for a token, grow by `rank` slots every `block` tokens.

    Positions are rotary (`rope`), or none: a slot stands where its block ends. The paper learns relative ones.
    """

    kind = "low-rank"
    paper = "Zhu et al. 2021 (Long-Short Transformer), 2107.02192"
    bounded_state = False
    free_sizes = ("rank",)

    def __init__(
        self, *, width: int, heads: int = 4, block: int = 128, rank: int = 2, rope: float | None = 10000.0
    ) -> None:
        super().__init__()
        whole(block=block, rank=rank)
        self.block, self.rank = block, rank
        self.projections = QueryKeyValue(width=width, heads=heads, rope=rope)
        # No bias: the softmax over tokens would not see it.
        self.scores = nn.Linear(width, heads * rank, bias=False)
        self.slot_norm = nn.LayerNorm(width)
        self.window_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width, bias=False)
        for norm in (self.slot_norm, self.window_norm):
            tag(norm.weight, decay=False)
            tag(norm.bias, decay=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Attend from each token to its window and to the slots before it."""
        return self._mix(x, self.initial_state(x.shape[0], x))[0]

    def initial_state(self, batch: int, like: Tensor) -> LinformerCausalState:
        """Return no tokens and no slots."""
        tokens = like.new_empty(batch, 0, self.out.in_features)
        scores = like.new_empty(batch, 0, self.scores.out_features)
        slots = split_heads(tokens, self.projections.head_width).contiguous()
        return LinformerCausalState(tokens, tokens, scores, slots, slots)

    def extend(
        self, x: Float[Tensor, "b n d"], state: LinformerCausalState
    ) -> tuple[Float[Tensor, "b n d"], LinformerCausalState]:
        """Attend from each new token; a block that it finishes becomes slots."""
        y, keys, values, scores, slot_keys, slot_values = self._mix(x, state)
        finished = slot_keys.shape[2] // self.rank
        unfinished = scores.shape[1] % self.block
        kept = unfinished + (self.block if finished else 0)
        return y, LinformerCausalState(
            keys[:, keys.shape[1] - kept :].clone(),
            values[:, values.shape[1] - kept :].clone(),
            scores[:, scores.shape[1] - unfinished :].clone(),
            slot_keys,
            slot_values,
        )

    def _mix(self, x: Tensor, state: LinformerCausalState) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return the output, the state's window and scores with those of x behind them, and all slots."""
        # Where things stand follows from their number: each finished block has `rank` slots.
        finished, pending = state.slot_keys.shape[2] // self.rank, state.scores.shape[1]
        past = finished * self.block + pending
        keys, values, scores = (
            torch.cat([before, project(x).to(before.dtype)], dim=1)
            for before, project in (
                (state.keys, self.projections.key),
                (state.values, self.projections.value),
                (state.scores, self.scores),
            )
        )
        end = past + x.shape[1]
        start = end - keys.shape[1]
        q = self._turn(self._split(self.projections.query(x)), arange(past, end, device=x.device))
        k, v = (self._split(self.window_norm(each.to(x.dtype))).to(q.dtype) for each in (keys, values))
        k = self._turn(k, arange(start, end, device=x.device))
        slot_k, slot_v = self._slots(keys, values, scores, finished)
        slot_k = torch.cat([state.slot_keys, slot_k.to(state.slot_keys.dtype)], dim=2)
        slot_v = torch.cat([state.slot_values, slot_v.to(state.slot_values.dtype)], dim=2)
        o = long_short_attention(
            q, k, v, slot_k.to(q.dtype), slot_v.to(q.dtype), self.block, self.rank, start // self.block
        )
        return self.out(join_heads(o)), keys, values, scores, slot_k, slot_v

    def _slots(self, keys: Tensor, values: Tensor, scores: Tensor, finished: int) -> tuple[Tensor, Tensor]:
        """Return the slots of the blocks that end in `scores`, normalised, keys turned to the ends of their blocks."""
        start, weights = keys.shape[1] - scores.shape[1], split_heads(scores, self.rank)
        k, v = (
            self._split(self.slot_norm(join_heads(block_slots(self._split(x[:, start:]), weights, self.block))))
            for x in (keys, values)
        )
        ends = (finished + 1 + arange(k.shape[2], device=k.device) // self.rank) * self.block - 1
        return self._turn(k, ends), v

    def _split(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b h t k"]:
        return split_heads(x, self.projections.head_width)

    def _turn(self, x: Float[Tensor, "b h t k"], positions: Int[Tensor, " t"]) -> Float[Tensor, "b h t k"]:
        """Turn queries or keys to their positions."""
        rope = self.projections.rope
        return x if rope is None else rotate(x, rotary_turns(positions, x, rope))
