"""H3: a shift and a diagonal state space model, combined by two products."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.anchored import Anchored
from hybridlab.mixers.parts.short_convolution import ShortConvolution
from hybridlab.mixers.parts.state_space import check_state_size, draw_log_steps, draw_readout
from hybridlab.ops.conv.fft_conv import fft_conv
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.ops.ssm.diagonal_ssm import (
    advance_diagonal_state,
    bilinear,
    complex_product,
    diagonal_kernel,
    read_diagonal_state,
    zero_order_hold,
)
from hybridlab.validate import choice, positive, whole

DISCRETISATIONS = {"bilinear": bilinear, "zoh": zero_order_hold}


class H3State(NamedTuple):
    """The last l = conv_size-1 keys, and the modes of each channel.

    Of each conjugate pair one is stored, real parts before imaginary parts.
    """

    keys: Float[Tensor, "b l d"]
    modes: Float[Tensor, "b d n"]


class H3(Mixer):
    """y = W_out (q ⊙ SSM_diag(SSM_shift(k) ⊙ v)), with q, k and v linear maps of x.

    The shift SSM is a convolution over the last `conv_size` keys; its skip is part of the tap of
    the token itself. The diagonal SSM is S4D-Lin's, with a skip, discretised by the bilinear rule
    as in the authors' code (HazyResearch/H3), or with a zero-order hold. Time steps and A learn at
    `ssm_lr` at most, as there (null: at the common rate).

    It differs by choice in this: the matrices B are fixed, linear maps have no bias, and heads are
    one channel wide, the authors' default and the paper's form without outer products.
    """

    kind = "convolution"
    paper = "Fu et al. 2022, 2212.14052"
    version = 2  # 2: bilinear rule, random skips, a smaller learning rate for time steps and A
    bounded_state = True
    free_sizes = ("state",)

    def __init__(
        self,
        *,
        width: int,
        conv_size: int = 64,
        state: int = 64,
        discretisation: str = "bilinear",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        ssm_lr: float | None = 0.001,
    ) -> None:
        super().__init__()
        whole(conv_size=conv_size)
        check_state_size(state)
        choice(DISCRETISATIONS, discretisation=discretisation)
        positive(null="the common rate", ssm_lr=ssm_lr)
        self.state, self.discretisation = state, discretisation
        self.in_projection = nn.Linear(width, 3 * width, bias=False)
        self.convolution = ShortConvolution(width=width, conv_size=conv_size, bias=False)
        with torch.no_grad():
            self.convolution.weight[:, -1] += torch.randn(width)
        self.log_step = Anchored(draw_log_steps(width, dt_min, dt_max), ssm_lr)
        modes = torch.full((width, state // 2), math.log(0.5))
        self.log_rate = tag(nn.Parameter(modes), decay=False, initialise=False, lr=ssm_lr)
        self.frequency = Anchored((math.pi * torch.arange(state // 2)).expand_as(modes).clone(), ssm_lr)
        self.readout = tag(nn.Parameter(draw_readout(width, state)), initialise=False)
        self.skip = tag(nn.Parameter(torch.randn(width)), decay=False, initialise=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Convolve whole sequences with both kernels."""
        q, u, _ = self._drive(x, None)
        log_radius, angle, output = self._discretise(x)
        return self._output(q, u, fft_conv(u, diagonal_kernel(log_radius, angle, output, x.shape[1])))

    def initial_state(self, batch: int, like: Tensor) -> H3State:
        """Return zero keys and modes."""
        modes = like.new_zeros(batch, len(self.skip), self.state, dtype=accumulation_dtype(like))
        return H3State(self.convolution.empty_past(batch, like), modes)

    def extend(self, x: Float[Tensor, "b n d"], state: H3State) -> tuple[Float[Tensor, "b n d"], H3State]:
        """Convolve the chunk, and add the decayed state at each of its tokens."""
        q, u, keys = self._drive(x, state.keys)
        log_radius, angle, output = self._discretise(x)
        n = x.shape[1]
        y = fft_conv(u, diagonal_kernel(log_radius, angle, output, n))
        y = y + read_diagonal_state(state.modes, log_radius, angle, output, n).to(y.dtype)
        return self._output(q, u, y), H3State(keys, advance_diagonal_state(u, log_radius, angle, state.modes))

    def _drive(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.in_projection(x).chunk(3, dim=-1)
        shifted, keys = self.convolution(k, past)
        return q, shifted * v, keys

    def _discretise(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dtype = accumulation_dtype(x)
        step = self.log_step(dtype).exp()[:, None]
        discretise = DISCRETISATIONS[self.discretisation]
        log_radius, angle, factor = discretise(self.log_rate.to(dtype).exp(), self.frequency(dtype), step)
        return log_radius, angle, complex_product(self.readout, factor)

    def _output(self, q: Tensor, u: Tensor, y: Tensor) -> Tensor:
        return self.out(q * torch.addcmul(y, u, self.skip.to(u.dtype)))
