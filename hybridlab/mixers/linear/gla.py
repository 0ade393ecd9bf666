"""Gated linear attention: a decay for each channel of the key, computed from the token."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.errors import ConfigError
from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.projections import join_normalised_heads, split_heads
from hybridlab.ops.linear.gated_linear_attention import chunked_gated_linear_attention
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.validate import positive, power_of_two, whole


class GLAState(NamedTuple):
    """The state of each head."""

    state: Float[Tensor, "b h k v"]


class GLA(Mixer):
    """S_t = Diag(α_t) S_{t-1} + k_t v_tᵀ, o_t = S_tᵀ q_t / √k.

    y = W_out (norm(o) ⊙ SiLU(gate)) with an RMS norm of each head. α_t = σ(W x_t +
    bias)^(1/temperature) with W of rank `decay_rank`: the temperature keeps decays near 1. All keys
    together are `expand_k` times as wide as the stack, all values `expand_v` times.
    """

    kind = "linear"
    paper = "Yang et al. 2023, 2312.06635"
    bounded_state = True
    free_sizes = ("expand_v", "expand_k")

    def __init__(
        self,
        *,
        width: int,
        heads: int = 4,
        expand_k: float = 0.5,
        expand_v: float = 1.0,
        decay_rank: int = 16,
        temperature: float = 16.0,
        chunk: int = 64,
    ) -> None:
        super().__init__()
        whole(heads=heads, decay_rank=decay_rank)
        power_of_two(chunk=chunk)
        for name, share in (("expand_k", expand_k), ("expand_v", expand_v)):
            if not share > 0 or share * width % heads:
                raise ConfigError(
                    f"{name}={share}: times the width, {width}, must be a multiple of heads, {heads}, above 0"
                )
        positive(temperature=temperature)
        keys, values = round(expand_k * width), round(expand_v * width)
        self.key_width, self.value_width = keys // heads, values // heads
        self.temperature, self.chunk = temperature, chunk
        self.query = nn.Linear(width, keys, bias=False)
        self.key = nn.Linear(width, keys, bias=False)
        self.value = nn.Linear(width, values, bias=False)
        self.decay = nn.Sequential(nn.Linear(width, decay_rank, bias=False), nn.Linear(decay_rank, keys, bias=False))
        self.decay_bias = tag(nn.Parameter(torch.zeros(keys)), decay=False, initialise=False)
        self.gate = nn.Linear(width, values, bias=False)
        self.norm = tag(nn.Parameter(torch.ones(self.value_width)), decay=False, initialise=False)
        self.out = nn.Linear(values, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences in chunks."""
        return self._mix(x, None)[0]

    def initial_state(self, batch: int, like: Tensor) -> GLAState:
        """Return zero states."""
        shape = (batch, self.key.out_features // self.key_width, self.key_width, self.value_width)
        return GLAState(like.new_zeros(shape, dtype=accumulation_dtype(like)))

    def extend(self, x: Float[Tensor, "b n d"], state: GLAState) -> tuple[Float[Tensor, "b n d"], GLAState]:
        """Continue the recurrence through the chunk."""
        y, last = self._mix(x, state.state)
        return y, GLAState(last.clone())

    def _mix(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        q = split_heads(self.query(x) * self.key_width**-0.5, self.key_width)
        k, v = split_heads(self.key(x), self.key_width), split_heads(self.value(x), self.value_width)
        # Decays in float32: bfloat16 would round those near 1 to 1.
        dtype = accumulation_dtype(x)
        log_decay = F.logsigmoid(self.decay(x).to(dtype) + self.decay_bias.to(dtype)) / self.temperature
        log_decay = split_heads(log_decay, self.key_width)
        o, state = chunked_gated_linear_attention(q, k, v, log_decay, state, self.chunk)
        return self.out(join_normalised_heads(o, self.norm) * F.silu(self.gate(x))), state
