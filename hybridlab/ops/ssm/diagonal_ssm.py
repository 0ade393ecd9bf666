"""Diagonal state space models with one input and one output per channel: h_t = λ h_{t-1} + x_t, y_t = 2 Re Σ_m c_m h_{t,m}.

λ = exp(log_radius + i·angle), one of each pair of conjugates (S4D, 2206.11893). Complex numbers are real ones here, the
real parts of all modes before the imaginary ones: matrix products of them are faster than complex ones, and compile.
Letters: b batch, t time, d channels, m modes.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.precision import autocast_off
from hybridlab.ops.ssm.flush_to_zero import flushed_exp


def recurrent_diagonal_ssm(
    x: Float[Tensor, "b t d"],
    log_radius: Float[Tensor, "d m"],
    angle: Float[Tensor, "d m"],
    output: Float[Tensor, "d 2*m"],
    state: Float[Tensor, "b d 2*m"] | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b d 2*m"]]:
    """Step through the recurrence: the definition of what the functions below give all at once."""
    transition = torch.polar(log_radius.exp(), angle)
    c = torch.complex(*output.chunk(2, -1))
    h = x.new_zeros(x.shape[0], *transition.shape) if state is None else torch.complex(*state.chunk(2, -1))
    outputs = []
    for token in x.unbind(1):
        h = transition * h + token[..., None]
        outputs.append(2 * (c * h).sum(-1).real)
    return torch.stack(outputs, dim=1), torch.cat([h.real, h.imag], dim=-1)


def zero_order_hold(
    rate: Float[Tensor, "d m"], frequency: Float[Tensor, "d m"], step: Float[Tensor, "d 1"]
) -> tuple[Float[Tensor, "d m"], Float[Tensor, "d m"], Float[Tensor, "d 2*m"]]:
    """Discretise h' = A h + x, A = -rate + i·frequency, with x held over a step Δ.

    Return the logarithm of the radius and the angle of λ = e^{ΔA}, and (λ - 1) / A, which an input is multiplied by.
    """
    log_radius, angle = -rate * step, frequency * step
    # λ - 1 without a difference of numbers near 1: cos a - 1 = -2 sin²(a/2).
    real = log_radius.expm1() * angle.cos() - 2 * (angle / 2).sin().square()
    imaginary = log_radius.exp() * angle.sin()
    size = rate.square() + frequency.square()
    inverse = torch.cat([-rate / size, -frequency / size], dim=-1)
    return log_radius, angle, complex_product(torch.cat([real, imaginary], dim=-1), inverse)


def complex_product(a: Float[Tensor, "*b 2*m"], b: Float[Tensor, "*b 2*m"]) -> Float[Tensor, "*b 2*m"]:
    """Multiply complex numbers that are kept as real parts before imaginary ones."""
    (p, q), (r, s) = a.chunk(2, -1), b.chunk(2, -1)
    return torch.cat([p * r - q * s, p * s + q * r], dim=-1)


def diagonal_kernel(
    log_radius: Float[Tensor, "d m"], angle: Float[Tensor, "d m"], output: Float[Tensor, "d 2*m"], length: int
) -> Float[Tensor, "d l"]:
    """Return K_l = 2 Re Σ_m c_m λ_m^l: the outputs y_0, y_1 ... that one input x_0 = 1 leaves."""
    with autocast_off(output):
        return _sum_of_powers(output[None], log_radius, angle, length)[0]


def read_diagonal_state(
    state: Float[Tensor, "b d 2*m"],
    log_radius: Float[Tensor, "d m"],
    angle: Float[Tensor, "d m"],
    output: Float[Tensor, "d 2*m"],
    length: int,
) -> Float[Tensor, "b l d"]:
    """Return 2 Re Σ_m c_m λ_m^{l+1} h_m: what the state adds to the next outputs."""
    with autocast_off(state):
        weights = complex_product(complex_product(state, output), _polar(log_radius, angle))
        return _sum_of_powers(weights, log_radius, angle, length).mT


def carry_diagonal_state(
    x: Float[Tensor, "b t d"],
    log_radius: Float[Tensor, "d m"],
    angle: Float[Tensor, "d m"],
    state: Float[Tensor, "b d 2*m"],
) -> Float[Tensor, "b d 2*m"]:
    """Return λ^t h + Σ_j λ^{t-1-j} x_j: the state after x. No tensor holds all tokens of all modes."""
    with autocast_off(x):
        b, t, d = x.shape
        blocks, block = _two_levels(t)
        # By age: the last token, whose power is 0, comes first. Zeros before the first token add nothing.
        aged = F.pad(x.to(state.dtype).flip(1).permute(2, 0, 1), (0, blocks * block - t))
        within = aged.reshape(d, b * blocks, block) @ _powers(log_radius, angle, block)
        starts = _powers(log_radius, angle, blocks, block)
        added = complex_product(within.unflatten(1, (b, blocks)), starts[:, None]).sum(2).transpose(0, 1)
        return complex_product(state, _polar(t * log_radius, t * angle)) + added


def _sum_of_powers(
    weights: Float[Tensor, "b d 2*m"], log_radius: Float[Tensor, "d m"], angle: Float[Tensor, "d m"], length: int
) -> Float[Tensor, "b d l"]:
    """Return 2 Re Σ_m w_m λ_m^l. With l = a·block + r it is a product of all w λ^{a·block} with all λ^r."""
    b, d, _ = weights.shape
    blocks, block = _two_levels(length)
    starts = complex_product(weights.transpose(0, 1)[:, :, None], _powers(log_radius, angle, blocks, block)[:, None])
    real, imaginary = starts.flatten(1, 2).chunk(2, -1)
    sums = torch.cat([2 * real, -2 * imaginary], dim=-1) @ _powers(log_radius, angle, block).mT
    return sums.view(d, b, -1)[..., :length].transpose(0, 1)


def _two_levels(length: int) -> tuple[int, int]:
    """Return a number of blocks and their length, both about √length, that hold `length` together."""
    block = math.isqrt(length - 1) + 1
    return -(-length // block), block


def _powers(
    log_radius: Float[Tensor, "d m"], angle: Float[Tensor, "d m"], count: int, stride: int = 1
) -> Float[Tensor, "d l 2*m"]:
    """Return λ^0, λ^stride, λ^{2·stride} ...: each from its logarithm, so that no product sums up rounding."""
    exponents = torch.arange(0, count * stride, stride, dtype=angle.dtype, device=angle.device)[:, None]
    return _polar(exponents * log_radius[:, None], exponents * angle[:, None])


def _polar(log_radius: Float[Tensor, "*b m"], angle: Float[Tensor, "*b m"]) -> Float[Tensor, "*b 2*m"]:
    radius = flushed_exp(log_radius)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1)
