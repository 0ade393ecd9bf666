"""Retention: linear attention in which each head decays at a fixed rate."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.parts.projections import check_rope, join_heads, split_heads
from hybridlab.ops.attention.rotary import rotary_turns, rotate
from hybridlab.ops.linear.linear_attention import chunked_linear_attention
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.validate import choice, divides, whole

NORMS = {"layer": F.layer_norm, "rms": F.rms_norm}


class RetentionState(NamedTuple):
    """The decayed sums Σ γ^(t-j) k_j v_jᵀ of rotated keys, and the number of past tokens."""

    sums: Float[Tensor, "b h k v"]
    position: Int[Tensor, "b 1"]


class Retention(Mixer):
    """S_t = γ_h S_{t-1} + k_t v_tᵀ, o_t = S_tᵀ q_t / √k, γ_h = 1 - 2^(-5-h).

    y = W_out (SiLU(W_g x) ⊙ norm(o)). Queries and keys have rotary positions, or none (`rope`
    null). All values together are `expand_v` times as wide as the stack. `norm` acts on each head
    and has no scale, which the linear map would absorb. `layer` also subtracts the head's mean: the
    group norm of the paper's equation 8. `rms` does not: the norm of the authors' code (torchscale)
    and of flash-linear-attention. It differs by choice in the angles of the positions, which
    are those of RoPE, as in flash-linear-attention; the authors' grow a little otherwise.
    """

    kind = "linear"
    paper = "Sun et al. 2023 (RetNet), 2307.08621"
    bounded_state = True
    free_sizes = ("expand_v",)

    def __init__(
        self,
        *,
        width: int,
        heads: int = 4,
        expand_v: int = 2,
        norm: str = "layer",
        rope: float | None = 10000.0,
        chunk: int = 64,
    ) -> None:
        super().__init__()
        whole(heads=heads, expand_v=expand_v, chunk=chunk)
        divides(width, "the width", heads=heads)
        choice(NORMS, norm=norm)
        check_rope(rope, width // heads)
        self.heads, self.expand_v, self.rope, self.chunk = heads, expand_v, rope, chunk
        self.head_width, self.norm = width // heads, norm
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, expand_v * width, bias=False)
        self.gate = nn.Linear(width, expand_v * width, bias=False)
        self.out = nn.Linear(expand_v * width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences in chunks."""
        return self._mix(x, None, 0)[0]

    def initial_state(self, batch: int, like: Tensor) -> RetentionState:
        """Return zero sums at position 0."""
        shape = (batch, self.heads, self.head_width, self.expand_v * self.head_width)
        return RetentionState(
            like.new_zeros(shape, dtype=accumulation_dtype(like)),
            torch.zeros(batch, 1, dtype=torch.long, device=like.device),
        )

    def extend(self, x: Float[Tensor, "b n d"], state: RetentionState) -> tuple[Float[Tensor, "b n d"], RetentionState]:
        """Continue the recurrence through the chunk."""
        y, sums = self._mix(x, state.sums, state.position)
        return y, RetentionState(sums.clone(), state.position + x.shape[1])

    def _mix(self, x: Tensor, sums: Tensor | None, past: int | Tensor) -> tuple[Tensor, Tensor]:
        q, k = (split_heads(project(x), self.head_width) for project in (self.query, self.key))
        if self.rope is not None:
            turns = rotary_turns(past + torch.arange(x.shape[1], device=x.device), q, self.rope)
            q, k = rotate(q, turns), rotate(k, turns)
        v = split_heads(self.value(x), self.expand_v * self.head_width)
        dtype = accumulation_dtype(v)
        log_decay = log_decays(self.heads, dtype, x.device)[:, None].expand(len(x), -1, x.shape[1])
        o, sums = chunked_linear_attention(q * self.head_width**-0.5, k, v, log_decay, sums, self.chunk)
        o = NORMS[self.norm](o, o.shape[-1:], eps=1e-5)
        return self.out(F.silu(self.gate(x)) * join_heads(o)), sums


def log_decays(heads: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, " h"]:
    """Return log γ_h = log(1 - 2^(-5-h)) for h from 0: later heads remember longer."""
    return torch.log1p(-(2.0 ** (-5 - torch.arange(heads, dtype=dtype, device=device))))
