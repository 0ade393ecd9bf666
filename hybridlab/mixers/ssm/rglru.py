"""Griffin's recurrent block with its real-gated linear recurrent unit (RG-LRU)."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.short_convolution import ShortConvolution
from hybridlab.ops.precision import accumulation_dtype, autocast_off
from hybridlab.ops.ssm.elementwise_scan import elementwise_scan
from hybridlab.validate import positive, whole

# The paper's c: decays lie between a^c and 1.
SHARPNESS = 8.0
# Initial range of a^c.
STRONGEST_DECAY, WEAKEST_DECAY = 0.9, 0.999


class RglruState(NamedTuple):
    """The last l = conv_size-1 inputs of the convolution, the state, whether a token was read."""

    inputs: Float[Tensor, "b l e"]
    state: Float[Tensor, "b e"]
    begun: Bool[Tensor, "b 1"]


class Rglru(Mixer):
    """h_t = a_t ⊙ h_{t-1} + √(1 - a_t²) ⊙ i_t ⊙ u_t, a_t = exp(-8 softplus(Λ) ⊙ r_t).

    y = W_out (h ⊙ GELU(W x)). u is a short convolution of a second linear map of x. The gates r and
    i are sigmoids of block-diagonal maps of u, with one block for each of `heads`. The first token
    of a sequence is not scaled: √(1 - a²) is replaced by 1. The strongest decays, a with r = 1,
    start uniform in 0.9 to 0.999, as in the paper's text; in the authors' code their eighth roots
    do. It differs from that code by choice in having no bias in the linear maps, and in the taps of
    the convolution, which start uniform as in PyTorch, there normal with a sixth of their size.

    Letters: e inner width (`expand`·d, rounded to a multiple of 8·heads), h heads of width k.
    """

    kind = "recurrence"
    paper = "De et al. 2024, 2402.19427"
    bounded_state = True
    free_sizes = ("expand",)

    def __init__(self, *, width: int, heads: int = 4, expand: float = 1.333, conv_size: int = 4) -> None:
        super().__init__()
        whole(heads=heads, conv_size=conv_size)
        positive(expand=expand)
        # Blocks whose width is a multiple of 8 suit matrix products.
        expanded = max(round(expand * width / (8 * heads)), 1) * 8 * heads
        self.in_projection = nn.Linear(width, 2 * expanded, bias=False)
        self.convolution = ShortConvolution(width=expanded, conv_size=conv_size, bias=True)
        self.recurrence = GatedRecurrence(expanded, heads)
        self.out = nn.Linear(expanded, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences in chunks."""
        return self._mix(x, None)[0]

    def initial_state(self, batch: int, like: Tensor) -> RglruState:
        """Return zero inputs and states, before the first token."""
        return RglruState(
            self.convolution.empty_past(batch, like),
            like.new_zeros(batch, self.out.in_features, dtype=accumulation_dtype(like)),
            like.new_zeros(batch, 1, dtype=torch.bool),
        )

    def extend(self, x: Float[Tensor, "b n d"], state: RglruState) -> tuple[Float[Tensor, "b n d"], RglruState]:
        """Continue the recurrence through the chunk."""
        y, inputs, last = self._mix(x, state)
        return y, RglruState(inputs, last.clone(), torch.ones_like(state.begun))

    def _mix(self, x: Tensor, state: RglruState | None) -> tuple[Tensor, Tensor, Tensor]:
        gate, u = self.in_projection(x).chunk(2, dim=-1)
        u, inputs = self.convolution(u, None if state is None else state.inputs)
        start, begun = (None, None) if state is None else (state.state, state.begun)
        h, last = self.recurrence(u, start, begun)
        return self.out(h * F.gelu(gate, approximate="tanh")), inputs, last


class GatedRecurrence(nn.Module):
    """The RG-LRU: a linear recurrence whose decay and input are gated."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        block = width // heads
        self.recurrence_weight, self.input_weight = (
            tag(nn.Parameter(torch.empty(heads, block, block).normal_(std=block**-0.5)), initialise=False)
            for _ in range(2)
        )
        self.recurrence_bias, self.input_bias = (
            tag(nn.Parameter(torch.zeros(heads, block)), decay=False, initialise=False) for _ in range(2)
        )
        # a^c = exp(-c softplus(Λ)) is uniform in its range.
        rate = -torch.empty(width).uniform_(STRONGEST_DECAY, WEAKEST_DECAY).log() / SHARPNESS
        self.rate = tag(nn.Parameter(rate.expm1().log()), decay=False, initialise=False)  # Λ

    def forward(
        self, u: Float[Tensor, "b t e"], start: Float[Tensor, "b e"] | None, begun: Bool[Tensor, "b 1"] | None
    ) -> tuple[Float[Tensor, "b t e"], Float[Tensor, "b e"]]:
        """Return all states, and the last in float32 at least; `begun`: after the first token."""
        blocks = u.unflatten(-1, (self.input_weight.shape[0], -1))
        recurrence_gate = _block_diagonal(blocks, self.recurrence_weight, self.recurrence_bias)
        input_gate = _block_diagonal(blocks, self.input_weight, self.input_bias)
        with autocast_off(u):
            # Decays in float32: bfloat16 would round those near 1 to 1.
            dtype = accumulation_dtype(u)
            rate = -SHARPNESS * F.softplus(self.rate.to(dtype))
            log_decay = rate * recurrence_gate.to(dtype).sigmoid()
            scale = _bounded_sqrt(-torch.expm1(2 * log_decay))
            first = torch.ones_like(scale[:, :1])
            if begun is not None:
                first = torch.where(begun[..., None], scale[:, :1], first)
            scale = torch.cat([first, scale[:, 1:]], dim=1)
            h, last = elementwise_scan(scale * input_gate.to(dtype).sigmoid() * u, log_decay, start)
            return h.to(u.dtype), last


def _block_diagonal(
    u: Float[Tensor, "b t h k"], weight: Float[Tensor, "h k k"], bias: Float[Tensor, "h k"]
) -> Float[Tensor, "b t h*k"]:
    """Multiply each head by its own matrix, add the bias, and join the heads."""
    return (torch.einsum("bthk,hkj->bthj", u, weight) + bias).flatten(-2)


def _bounded_sqrt(x: Tensor) -> Tensor:
    """Return √x, but a line through 0 below 1e-12, since the slope of √x at 0 gives NaN gradients.

    A line this short is enough, as the factor of the slope (the decay's gate or rate) vanishes with
    x.
    """
    return x * x.clamp(min=1e-12).rsqrt()
