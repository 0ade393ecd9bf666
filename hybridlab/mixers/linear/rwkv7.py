"""RWKV-7's time mixing: a decaying state in which each token overwrites one direction."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.projections import join_heads, split_heads
from hybridlab.ops.linear.diagonal_plus_low_rank import chunked_diagonal_plus_low_rank
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.validate import divides, power_of_two, whole

# The smallest log decay of a token. Over SAFE_TOKENS tokens an inverse decay stays below 10^17.
STRONGEST_LOG_DECAY, SAFE_TOKENS = -math.exp(-0.5), 64
# Initial share of the previous token in channel i: 1 - (i / width)^power, as mid-stack.
SHIFT_POWERS = {"receptance": 0.1, "decay": 0.45, "key": 0.35, "value": 0.35, "rate": 0.45, "gate": 0.1}


class RWKV7State(NamedTuple):
    """The last token's input, and the state of each head."""

    token: Float[Tensor, "b 1 d"]
    state: Float[Tensor, "b h k k"]


class RWKV7(Mixer):
    """S_t = (Diag(w_t) - (a_t ⊙ κ_t) κ_tᵀ) S_{t-1} + k_t v_tᵀ.

    y_t = W_out (g_t ⊙ (norm(S_tᵀ r_t) + (r_t·(ρ ⊙ k_t)) v_t)). r, w, k, v, a and g each depend on
    their own mixture of the token and the previous one. The decay w = exp(-e^{-1/2} σ(·)), the rate
    a = σ(·) at which the value stored under κ is removed, and the gate g are maps of low rank. κ is
    the key, scaled per channel and then to length 1; k is the key times 1 + α ⊙ (a - 1). `norm` is
    a group norm with one head per group. The paper also mixes the values of the first layer into
    later ones; a mixer sees only its own layer, so this is left out.
    """

    kind = "linear"
    paper = "Peng et al. 2025, 2503.14456"
    bounded_state = True

    def __init__(
        self,
        *,
        width: int,
        heads: int = 4,
        decay_rank: int | None = None,
        rate_rank: int | None = None,
        gate_rank: int | None = None,
        chunk: int = 32,
    ) -> None:
        super().__init__()
        whole(heads=heads)
        whole(decay_rank=decay_rank, rate_rank=rate_rank, gate_rank=gate_rank, null="from the width")
        power_of_two(chunk=chunk)
        divides(width, "the width", heads=heads)
        self.head_width, self.chunk = width // heads, chunk
        channel = torch.arange(width) / width
        self.shift = _kept(torch.stack([1 - channel**power for power in SHIFT_POWERS.values()]))
        self.receptance = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.decay = LowRank(width, decay_rank or _usual_rank(width, 2.5), nn.Tanh())
        self.decay_bias = _kept(6 * channel**1.8 - 5.5)
        self.rate = LowRank(width, rate_rank or _usual_rank(width, 2.5), nn.Identity())
        self.rate_bias = _kept(torch.zeros(width))
        self.gate = LowRank(width, gate_rank or _usual_rank(width, 5.0), nn.Sigmoid())
        self.removal_scale = _kept(torch.full((width,), 0.71))
        self.rate_share = _kept(torch.ones(width))  # α
        self.bonus = _kept(torch.full((width,), -0.04))  # ρ
        self.norm = _kept(torch.ones(width))
        self.norm_bias = _kept(torch.zeros(width))
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences in chunks."""
        return self._mix(x, None, None)[0]

    def initial_state(self, batch: int, like: Tensor) -> RWKV7State:
        """Return a zero token and zero states."""
        width = self.key.in_features
        shape = (batch, width // self.head_width, self.head_width, self.head_width)
        return RWKV7State(like.new_zeros(batch, 1, width), like.new_zeros(shape, dtype=accumulation_dtype(like)))

    def extend(self, x: Float[Tensor, "b n d"], state: RWKV7State) -> tuple[Float[Tensor, "b n d"], RWKV7State]:
        """Continue the recurrence through the chunk."""
        y, last = self._mix(x, state.token, state.state)
        return y, RWKV7State(x[:, -1:].to(state.token.dtype, copy=True), last.clone())

    def _mix(self, x: Tensor, token: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
        before = F.pad(x, (0, 0, 1, 0))[:, :-1] if token is None else torch.cat([token.to(x.dtype), x[:, :-1]], dim=1)
        change = before - x
        for_r, for_w, for_k, for_v, for_a, for_g = (torch.addcmul(x, change, share.to(x.dtype)) for share in self.shift)
        receptance, key, value = self.receptance(for_r), self.key(for_k), self.value(for_v)
        # Decays and rates in float32: bfloat16 would round those near 1 to 1.
        dtype = accumulation_dtype(x)
        log_decay = STRONGEST_LOG_DECAY * (self.decay(for_w).to(dtype) + self.decay_bias.to(dtype)).sigmoid()
        rate = (self.rate(for_a).to(dtype) + self.rate_bias.to(dtype)).sigmoid()
        removal = F.normalize(split_heads(key.to(dtype) * self.removal_scale.to(dtype), self.head_width), dim=-1)
        added = (key * (1 + self.rate_share.to(dtype) * (rate - 1))).to(key.dtype)
        r, k, v, a, g = (split_heads(each, self.head_width) for each in (receptance, added, value, rate, log_decay))
        o, state = chunked_diagonal_plus_low_rank(
            r, k, v, -removal.to(v.dtype), (a * removal).to(v.dtype), g, state, self.chunk, SAFE_TOKENS
        )
        normed = torch.addcmul(
            self.norm_bias, join_heads(F.layer_norm(o, o.shape[-1:], eps=1e-5 * self.head_width)), self.norm
        )
        bonus = (receptance * added * self.bonus).unflatten(-1, (-1, self.head_width)).sum(-1, keepdim=True)
        y = normed + (bonus * value.unflatten(-1, (-1, self.head_width))).flatten(-2)
        return self.out(y * self.gate(for_g)), state


class LowRank(nn.Module):
    """up(activation(down(x))), with `down` starting at 0: at first only the caller's bias acts."""

    def __init__(self, width: int, rank: int, activation: nn.Module) -> None:
        super().__init__()
        self.down = _kept_linear(width, rank)
        self.activation = activation
        self.up = _kept_linear(rank, width)
        nn.init.zeros_(self.down.weight)
        nn.init.orthogonal_(self.up.weight, gain=0.1)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Map through `rank` channels."""
        return self.up(self.activation(self.down(x)))


def _kept(value: Tensor) -> nn.Parameter:
    return tag(nn.Parameter(value), decay=False, initialise=False)


def _kept_linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, bias=False)
    linear.weight = tag(nn.Parameter(linear.weight.detach()), initialise=False)
    return linear


def _usual_rank(width: int, factor: float) -> int:
    """Return the multiple of 32 nearest to factor · √width, the authors' rule."""
    return max(32, 32 * round(factor * math.sqrt(width) / 32))
