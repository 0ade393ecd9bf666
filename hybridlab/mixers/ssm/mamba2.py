"""Mamba-2: a selective state space model with one decay per head."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.projections import join_heads, split_heads
from hybridlab.mixers.parts.short_convolution import ShortConvolution
from hybridlab.mixers.parts.step_bias import draw_step_bias
from hybridlab.ops.linear.linear_attention import chunked_linear_attention
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.validate import divides, whole


class Mamba2State(NamedTuple):
    """The last l = conv_size-1 inputs of the short convolution, and the state of each head."""

    inputs: Float[Tensor, "b l c"]
    state: Float[Tensor, "b h n p"]


class Mamba2(Mixer):
    """S_t = exp(Δ_t A) S_{t-1} + B_t (Δ_t x_t)ᵀ, y_t = S_tᵀ C_t + D x_t.

    The output is W_out norm(y ⊙ SiLU(z)) with an RMS norm of each group. x, B and C pass through a
    short convolution; Δ, B and C depend on the token; the heads are divided into `groups`, each
    with one B and C.

    Letters: e inner width (`expand`·d), h heads of width p, g groups, n state size (`state`),
    c = e + 2gn.

    The bidirectional form (Hydra, 2407.09941, section 3) has Δ, A, B and C of its own for each
    direction, and centres the convolution. A token reads the state of the tokens before it, the
    state of the tokens after it, and itself through D.

    It differs by choice from the authors' code in the bias of the convolution, which starts at 0,
    there uniform as in PyTorch.
    """

    kind = "ssm"
    paper = "Dao & Gu 2024, 2405.21060"
    bounded_state = True
    free_sizes = ("expand", "state")

    def __init__(
        self,
        *,
        width: int,
        expand: int = 2,
        head_width: int = 64,
        state: int = 128,
        conv_size: int = 4,
        groups: int = 1,
        chunk: int = 64,
        causal: bool = True,
    ) -> None:
        super().__init__()
        whole(expand=expand, head_width=head_width, state=state, conv_size=conv_size, groups=groups, chunk=chunk)
        expanded = expand * width
        divides(expanded, "the expanded width", head_width=head_width)
        heads = expanded // head_width
        divides(heads, "the number of heads", groups=groups)
        self.head_width, self.state, self.groups, self.chunk, self.causal = head_width, state, groups, chunk, causal
        directions = 1 if causal else 2
        self.sizes = (expanded, expanded + 2 * directions * groups * state, directions * heads)
        self.in_projection = nn.Linear(width, sum(self.sizes), bias=False)
        self.convolution = ShortConvolution(width=self.sizes[1], conv_size=conv_size, bias=True)
        self.log_rate = tag(
            nn.Parameter(torch.empty(self.sizes[2]).uniform_(1, 16).log()), decay=False, initialise=False
        )
        self.step_bias = tag(nn.Parameter(draw_step_bias(self.sizes[2])), decay=False, initialise=False)
        self.skip = tag(nn.Parameter(torch.ones(heads)), decay=False, initialise=False)
        self.norm = tag(nn.Parameter(torch.ones(expanded)), decay=False, initialise=False)
        self.out = nn.Linear(expanded, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences in chunks."""
        return self._mix(x, None, None)[0] if self.causal else self._mix_both_ways(x)

    def initial_state(self, batch: int, like: Tensor) -> Mamba2State:
        """Return zero inputs and states."""
        shape = (batch, self.sizes[2], self.state, self.head_width)
        return Mamba2State(
            self.convolution.empty_past(batch, like), like.new_zeros(shape, dtype=accumulation_dtype(like))
        )

    def extend(self, x: Float[Tensor, "b n d"], state: Mamba2State) -> tuple[Float[Tensor, "b n d"], Mamba2State]:
        """Continue the recurrence through the chunk."""
        y, inputs, last = self._mix(x, state.inputs, state.state)
        return y, Mamba2State(inputs, last.clone())

    def _mix(self, x: Tensor, past: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        gate, mixed, step = self.in_projection(x).split(self.sizes, dim=-1)
        mixed, inputs = self.convolution(mixed, past)
        value, keys_and_queries = self._split(F.silu(mixed))
        o, state = self._scan(value, keys_and_queries, *self._steps(step), state)
        return self._output(o, value, gate), inputs, state

    def _mix_both_ways(self, x: Tensor) -> Tensor:
        gate, mixed, step = self.in_projection(x).split(self.sizes, dim=-1)
        value, keys_and_queries = self._split(F.silu(self.convolution.centred(mixed)))
        ahead, back = keys_and_queries.chunk(2, dim=-1)
        (step, step_back), (log_decay, log_decay_back) = (each.chunk(2, dim=1) for each in self._steps(step))
        before, _ = self._scan(value, ahead, step, log_decay)
        after, _ = self._scan(value.flip(2), back.flip(1), step_back.flip(2), log_decay_back.flip(2))
        return self._output(_one_later(before) + _one_later(after).flip(2), value, gate)

    def _split(self, mixed: Tensor) -> tuple[Float[Tensor, "b h t p"], Float[Tensor, "b t r"]]:
        value, keys_and_queries = mixed.tensor_split([self.sizes[0]], dim=-1)
        return split_heads(value, self.head_width), keys_and_queries

    def _steps(self, step: Tensor) -> tuple[Float[Tensor, "b h t"], Float[Tensor, "b h t"]]:
        """Return time steps and log decays in float32: bfloat16 would round decays near 1 to 1."""
        dtype = accumulation_dtype(step)
        step = F.softplus(step.to(dtype) + self.step_bias.to(dtype)).mT
        return step, -step * self.log_rate.to(dtype).exp()[:, None]

    def _scan(
        self, value: Tensor, keys_and_queries: Tensor, step: Tensor, log_decay: Tensor, state: Tensor | None = None
    ) -> tuple[Float[Tensor, "b h t p"], Float[Tensor, "b h n p"]]:
        key, query = (split_heads(each, self.state) for each in keys_and_queries.chunk(2, dim=-1))
        driven = value * step[..., None].to(value.dtype)
        return chunked_linear_attention(query, key, driven, log_decay, state, self.chunk)

    def _output(self, o: Tensor, value: Tensor, gate: Tensor) -> Tensor:
        y = join_heads(torch.addcmul(o, value, self.skip.to(o.dtype)[:, None, None]))
        return self.out(self._normalise(y * F.silu(gate)))

    def _normalise(self, y: Float[Tensor, "b t e"]) -> Float[Tensor, "b t e"]:
        """Divide each group of heads by its root mean square."""
        y = y.unflatten(-1, (self.groups, -1))
        return F.rms_norm(y, y.shape[-1:], eps=1e-5).flatten(-2) * self.norm


def _one_later(o: Float[Tensor, "b h t p"]) -> Float[Tensor, "b h t p"]:
    return F.pad(o, (0, 0, 1, 0))[:, :, :-1]
