"""Causal low-rank attention: slots for each finished block, and exact attention in a window."""

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
    """Keys and values of the window, scores of the unfinished block, slots of all finished blocks.

    The window is the unfinished block and the one before it. Keys, values and scores are stored as
    projected; keys are normalised and rotated at each use.
    """

    keys: Float[Tensor, "b past d"]
    values: Float[Tensor, "b past d"]
    scores: Float[Tensor, "b own h*r"]
    slot_keys: Float[Tensor, "b h s k"]
    slot_values: Float[Tensor, "b h s k"]


class LinformerCausal(Mixer):
    """o_t = softmax(q_t·[K̄, K] / √k) [V̄, V]: attention to slots of earlier blocks and to a
    window.

    K̄ and V̄ are `rank` slots for each earlier block, K and V the tokens of the window. A slot is
    Σ_j p_j (k_j, v_j) over the tokens of a finished block of `block` tokens, with p = softmax_j(W
    x_j). The window is a token's own block, up to itself, and the one before. One layer norm for
    the keys and values of slots and another for those of the window (the paper's DualLN) bring both
    to one scale. Linformer's own sums contain the whole sequence and have no causal form. The
    state, and the time per token, grow by `rank` slots every `block` tokens.

    Positions are rotary (`rope`), or none; a slot has the position at which its block ends. The
    paper learns relative positions.
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
        # No bias: the softmax over tokens would cancel it.
        self.scores = nn.Linear(width, heads * rank, bias=False)
        self.slot_norm = nn.LayerNorm(width)
        self.window_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width, bias=False)
        for norm in (self.slot_norm, self.window_norm):
            tag(norm.weight, decay=False)
            tag(norm.bias, decay=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Attend from each token to its window and to the slots of earlier blocks."""
        return self._mix(x, self.initial_state(x.shape[0], x))[0]

    def initial_state(self, batch: int, like: Tensor) -> LinformerCausalState:
        """Return empty tokens and slots."""
        tokens = like.new_empty(batch, 0, self.out.in_features)
        scores = like.new_empty(batch, 0, self.scores.out_features)
        slots = split_heads(tokens, self.projections.head_width).contiguous()
        return LinformerCausalState(tokens, tokens, scores, slots, slots)

    def extend(
        self, x: Float[Tensor, "b n d"], state: LinformerCausalState
    ) -> tuple[Float[Tensor, "b n d"], LinformerCausalState]:
        """Attend from each new token, and compress the finished blocks into slots."""
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
        """Return the output, keys, values and scores with those of x appended, and all slots."""
        # Positions follow from counts: each finished block has `rank` slots.
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
        q = self._rotate(self._split(self.projections.query(x)), arange(past, end, device=x.device))
        k, v = (self._split(self.window_norm(each.to(x.dtype))).to(q.dtype) for each in (keys, values))
        k = self._rotate(k, arange(start, end, device=x.device))
        slot_k, slot_v = self._slots(keys, values, scores, finished)
        slot_k = torch.cat([state.slot_keys, slot_k.to(state.slot_keys.dtype)], dim=2)
        slot_v = torch.cat([state.slot_values, slot_v.to(state.slot_values.dtype)], dim=2)
        o = long_short_attention(
            q, k, v, slot_k.to(q.dtype), slot_v.to(q.dtype), self.block, self.rank, start // self.block
        )
        return self.out(join_heads(o)), keys, values, scores, slot_k, slot_v

    def _slots(self, keys: Tensor, values: Tensor, scores: Tensor, finished: int) -> tuple[Tensor, Tensor]:
        """Return normalised, rotated slots of the blocks that `scores` completes."""
        start, weights = keys.shape[1] - scores.shape[1], split_heads(scores, self.rank)
        k, v = (
            self._split(self.slot_norm(join_heads(block_slots(self._split(x[:, start:]), weights, self.block))))
            for x in (keys, values)
        )
        ends = (finished + 1 + arange(k.shape[2], device=k.device) // self.rank) * self.block - 1
        return self._rotate(k, ends), v

    def _split(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b h t k"]:
        return split_heads(x, self.projections.head_width)

    def _rotate(self, x: Float[Tensor, "b h t k"], positions: Int[Tensor, " t"]) -> Float[Tensor, "b h t k"]:
        """Rotate queries or keys to their positions."""
        rope = self.projections.rope
        return x if rope is None else rotate(x, rotary_turns(positions, x, rope))
