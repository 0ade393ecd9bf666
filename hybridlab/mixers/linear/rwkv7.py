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
# Initial share of the previous token in channel i of the first layer: 1 - (i / width)^power.
SHIFT_POWERS = {"receptance": 0.2, "decay": 0.9, "key": 0.7, "value": 0.7, "rate": 0.9, "gate": 0.2}


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
    a group norm with one head per group.

    Every parameter starts as in the authors' training code (BlinkDL/RWKV-LM, RWKV-v7/train_temp),
    and so depends on the layer's place in the stack: deeper layers take less of the previous token,
    keep more and write more. Linear maps start orthogonal, those of the keys at a tenth of the
    others, `out` at 0. As there, maps of low rank take no weight decay, and the bias of the decay
    learns at twice the common rate. It differs by choice in one thing: the paper also mixes the
    values of the first layer into later ones; a mixer sees only its own layer, so this is left out.
    """

    kind = "linear"
    paper = "Peng et al. 2025, 2503.14456"
    version = 2  # 2: initialised as in the authors' code, by depth; decay bias at twice the rate
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
        layer_index: int = 0,
        layer_count: int = 1,
    ) -> None:
        super().__init__()
        whole(heads=heads, layer_count=layer_count)
        whole(least=0, most=layer_count - 1, layer_index=layer_index)
        whole(decay_rank=decay_rank, rate_rank=rate_rank, gate_rank=gate_rank, null="from the width")
        power_of_two(chunk=chunk)
        divides(width, "the width", heads=heads)
        self.head_width, self.chunk = width // heads, chunk
        depth = layer_index / max(1, layer_count - 1)  # from 0 to 1
        left = 1 - layer_index / layer_count
        across, in_head = torch.arange(width) / max(1, width - 1), _signed_squares(width, self.head_width)
        self.shift = _kept(
            torch.stack([1 - (torch.arange(width) / width) ** (power * left) for power in SHIFT_POWERS.values()])
        )
        self.receptance = _orthogonal(width, width)
        self.key = _orthogonal(width, width, gain=0.1)
        self.value = _orthogonal(width, width)
        self.decay = LowRank(width, decay_rank or _usual_rank(width, 2.5), nn.Tanh())
        decay_bias = 6 * across ** (1 + depth**0.3) - 5.5 + 2.5 * in_head
        self.decay_bias = tag(nn.Parameter(decay_bias), decay=False, initialise=False, lr_factor=2.0)
        self.rate = LowRank(width, rate_rank or _usual_rank(width, 2.5), nn.Identity())
        self.rate_bias = _kept(0.4 * (across - 0.5) - 0.19 + 0.3 * in_head)
        self.gate = LowRank(width, gate_rank or _usual_rank(width, 5.0), nn.Sigmoid())
        self.removal_scale = _kept(0.71 - 0.1 * (across - 0.5))
        self.rate_share = _kept(torch.full((width,), 1.02))  # α
        self.bonus = _kept(torch.full((width,), -0.04))  # ρ
        self.norm = _kept(torch.full((width,), ((1 + layer_index) / layer_count) ** 0.7))
        self.norm_bias = _kept(torch.zeros(width))
        self.out = _orthogonal(width, width, gain=0.0)

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
        self.down = _orthogonal(width, rank, gain=0.0, decay=False)
        self.activation = activation
        self.up = _orthogonal(rank, width, gain=0.1 * max(1.0, rank / width) ** 0.5, decay=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Map through `rank` channels."""
        return self.up(self.activation(self.down(x)))


def _kept(value: Tensor) -> nn.Parameter:
    return tag(nn.Parameter(value), decay=False, initialise=False)


def _orthogonal(inputs: int, outputs: int, gain: float = 1.0, decay: bool = True) -> nn.Linear:
    """Return a linear map with orthonormal rows or columns, times `gain`."""
    linear = nn.Linear(inputs, outputs, bias=False)
    weight = torch.zeros(outputs, inputs)
    if gain:
        nn.init.orthogonal_(weight, gain)
    linear.weight = tag(nn.Parameter(weight), decay=decay, initialise=False)
    return linear


def _signed_squares(width: int, head_width: int) -> Float[Tensor, " d"]:
    """Return z·|z| for z from -1 to 1 over the channels of each head."""
    z = 2 * (torch.arange(width) % head_width) / max(1, head_width - 1) - 1
    return z * z.abs()


def _usual_rank(width: int, factor: float) -> int:
    """Return the multiple of 32 nearest to factor · √width, the authors' rule."""
    return max(32, 32 * round(factor * math.sqrt(width) / 32))
