"""Native sparse attention."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.projections import QueryKeyValue, join_heads, split_heads
from hybridlab.ops.attention.attention_weights import attention_weights
from hybridlab.ops.attention.block_attention import block_attention, block_mask
from hybridlab.ops.attention.compressed_attention import choice_by_importance, compressed_attention
from hybridlab.ops.attention.rotary import rotary_turns, rotate
from hybridlab.ops.attention.sliding_attention import sliding_attention, sliding_mask
from hybridlab.ops.attention.strided_pool import strided_pool
from hybridlab.validate import divides, whole

# Blocks that are always selected: the first and the latest two, including the token's own.
LATEST = 2
FIXED = 1 + LATEST


class NsaState(NamedTuple):
    """The cache of each branch.

    compressed: all m compressed blocks, and the l tokens that later blocks start from (`coming`);
    selected: all past tokens; window: the last window-1 tokens.
    """

    compressed_keys: Float[Tensor, "b g m k"]
    compressed_values: Float[Tensor, "b g m k"]
    coming_keys: Float[Tensor, "b g l k"]
    coming_values: Float[Tensor, "b g l k"]
    selected_keys: Float[Tensor, "b g past k"]
    selected_values: Float[Tensor, "b g past k"]
    window_keys: Float[Tensor, "b g last k"]
    window_values: Float[Tensor, "b g last k"]


class Nsa(Mixer):
    """o_t = Σ_c g_t^c Attention(q_t, K^c, V^c) over three branches c.

    The gates g_t = σ(W x_t) are one per head and branch. The branches:

    - compressed: a learned map makes one key and one value of each block of `compress_block`
      tokens; a block starts every `compress_stride` tokens and is seen once it has ended.
    - selected: the `top_k` blocks of `select_block` tokens with the largest weights in the
      compressed branch, summed over the heads that share keys, which therefore share the selection.
      The first block and the latest two are always selected.
    - window: the last `window` tokens.

    Each branch has its own keys and values. The compressed branch has no positions, which a sum
    over rotated keys would wipe out; those of the other branches are rotary (`rope`).
    """

    kind = "sparse"
    paper = "Yuan et al. 2025, 2502.11089"
    bounded_state = False
    free_sizes = ("top_k", "window")

    def __init__(
        self,
        *,
        width: int,
        heads: int = 4,
        kv_heads: int | None = 1,
        compress_block: int = 32,
        compress_stride: int = 16,
        select_block: int = 64,
        top_k: int = 16,
        window: int = 512,
        rope: float | None = 10000.0,
    ) -> None:
        super().__init__()

        whole(select_block=select_block, compress_stride=compress_stride, window=window)
        whole(most=select_block, compress_block=compress_block)
        whole(least=FIXED, top_k=top_k)
        divides(compress_block, "compress_block", compress_stride=compress_stride)
        divides(select_block, "select_block", compress_stride=compress_stride)
        self.compress_block, self.compress_stride = compress_block, compress_stride
        self.select_block, self.chosen, self.window = select_block, top_k - FIXED, window
        self.projections = QueryKeyValue(width=width, heads=heads, kv_heads=kv_heads, rope=rope)
        each = self.projections.head_width
        # Keys and values of the selected branch, then of the window branch.
        self.branches = nn.Linear(width, 4 * self.projections.kv_heads * each, bias=False)
        self.key_compression = Compression(width=each, length=compress_block, stride=compress_stride)
        self.value_compression = Compression(width=each, length=compress_block, stride=compress_stride)
        self.gates = nn.Linear(width, 3 * heads, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Attend in all three branches, from an empty past."""
        return self._mix(x, None)[0]

    def attention(self, x: Float[Tensor, "b t d"], at: Int[Tensor, " n"]) -> Float[Tensor, "b h n t"]:
        """Return the weights of all tokens for the queries at some positions, averaged by gate.

        The weight of a compressed block is divided evenly among its tokens.
        """
        t, length, stride = x.shape[1], self.compress_block, self.compress_stride
        q, turned, *_ = self._project(x, 0)
        seen, positions = self._mix(x, None)[1], torch.arange(t, device=x.device)
        starts = torch.arange(seen.compressed_keys.shape[2], device=x.device) * stride
        inside = (positions >= starts[:, None]) & (positions < starts[:, None] + length)
        finished = starts + length <= at[:, None] + 1
        compressed = attention_weights(q[:, :, at], seen.compressed_keys, finished)
        compressed = compressed.nan_to_num()  # before any block is finished
        chosen = self._choose(q, seen.compressed_keys, 0)[:, :, at]
        visible = block_mask(at, positions, chosen, self.select_block, LATEST, first=True)
        visible = visible.repeat_interleave(q.shape[1] // chosen.shape[1], dim=1)
        branches = (
            compressed @ (inside / length).to(compressed.dtype),
            attention_weights(turned[:, :, at], seen.selected_keys, visible),
            attention_weights(turned[:, :, at], seen.window_keys, sliding_mask(at, positions, self.window)),
        )
        gates = split_heads(self.gates(x[:, at]).sigmoid(), 3).split(1, dim=-1)
        read = torch.stack([gate * weights for gate, weights in zip(gates, branches, strict=True)]).sum(0)
        return read / read.sum(-1, keepdim=True)

    def initial_state(self, batch: int, like: Tensor) -> NsaState:
        """Return empty keys and values."""
        empty = like.new_empty(batch, self.projections.kv_heads, 0, self.projections.head_width)
        return NsaState(*[empty] * len(NsaState._fields))

    def extend(self, x: Float[Tensor, "b n d"], state: NsaState) -> tuple[Float[Tensor, "b n d"], NsaState]:
        """Append the chunk to the past of each branch, and attend from it."""
        y, seen = self._mix(x, state)
        # The compressed blocks that the chunk finished start with tokens that no later block needs.
        begun = self.compress_stride * (seen.compressed_keys.shape[2] - state.compressed_keys.shape[2])
        forgotten = max(seen.window_keys.shape[2] - self.window + 1, 0)
        return y, seen._replace(
            coming_keys=seen.coming_keys[:, :, begun:].clone(),
            coming_values=seen.coming_values[:, :, begun:].clone(),
            window_keys=seen.window_keys[:, :, forgotten:].clone(),
            window_values=seen.window_values[:, :, forgotten:].clone(),
        )

    def _mix(self, x: Tensor, state: NsaState | None) -> tuple[Tensor, NsaState]:
        """Return the mixed chunk, and the past followed by the chunk in all branches."""
        past = 0 if state is None else state.selected_keys.shape[2]
        q, turned, *new = self._project(x, past)
        state = self.initial_state(x.shape[0], q) if state is None else state
        coming_keys, coming_values, *others = (_join(old, each) for old, each in zip(state[2:], new, strict=True))
        seen = NsaState(
            _join(state.compressed_keys, self.key_compression(coming_keys.to(q.dtype))),
            _join(state.compressed_values, self.value_compression(coming_values.to(q.dtype))),
            coming_keys,
            coming_values,
            *others,
        )
        branches = self._attend(q, turned, NsaState(*(part.to(q.dtype) for part in seen)), past)
        gates = split_heads(self.gates(x).sigmoid(), 3).split(1, dim=-1)  # three of b h t 1
        weighted = [gate * o for gate, o in zip(gates, branches, strict=True)]
        return self.out(join_heads(weighted[0] + weighted[1] + weighted[2])), seen

    def _project(self, x: Tensor, past: int) -> tuple[Tensor, ...]:
        """Return queries, rotated queries, and keys and values of each of the three branches."""
        maps = self.projections
        q, k, v = (split_heads(project(x), maps.head_width) for project in (maps.query, maps.key, maps.value))
        selected_k, selected_v, window_k, window_v = split_heads(self.branches(x), maps.head_width).chunk(4, dim=1)
        if maps.rope is None:
            return q, q, k, v, selected_k, selected_v, window_k, window_v
        turns = rotary_turns(past + torch.arange(x.shape[1], device=x.device), q, maps.rope)
        turned, selected_k, window_k = (rotate(each, turns) for each in (q, selected_k, window_k))
        return q, turned, k, v, selected_k, selected_v, window_k, window_v

    def _attend(self, q: Tensor, turned: Tensor, seen: NsaState, past: int) -> tuple[Tensor, Tensor, Tensor]:
        k, v = seen.compressed_keys, seen.compressed_values
        chosen = self._choose(q, k, past)
        return (
            compressed_attention(q, k, v, past, self.compress_block, self.compress_stride),
            block_attention(
                turned, seen.selected_keys, seen.selected_values, chosen, self.select_block, local=LATEST, first=True
            ),
            sliding_attention(turned, seen.window_keys, seen.window_values, self.window),
        )

    def _choose(self, q: Tensor, compressed_keys: Tensor, past: int) -> Int[Tensor, "b g n c"]:
        blocks = self.compress_block, self.compress_stride, self.select_block
        return choice_by_importance(q, compressed_keys, past, *blocks, LATEST, self.chosen)


class Compression(nn.Module):
    """φ(x) = z + W₂ GELU(W₁ z), with z_i = Σ_j a_j ⊙ x_{i·stride+j}: a block of tokens becomes one.

    The paper uses an MLP with positions within the block and leaves its form open. Here the weights
    a, which start as those of a mean, carry the positions, so that a map over blocks of l tokens
    has k(l + 2k) weights; an MLP over the block would have l·k².
    """

    def __init__(self, *, width: int, length: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = tag(nn.Parameter(torch.full((length, width), 1 / length)), initialise=False)
        self.inner = nn.Linear(width, width, bias=False)
        self.outer = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b g t k"]) -> Float[Tensor, "b g m k"]:
        """Return one token for each full block."""
        pooled = strided_pool(x, self.weight, self.stride)
        return pooled + self.outer(F.gelu(self.inner(pooled)))


def _join(past: Tensor, new: Tensor) -> Tensor:
    return torch.cat([past, new.to(past.dtype)], dim=2)
