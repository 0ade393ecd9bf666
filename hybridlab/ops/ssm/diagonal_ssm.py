"""Diagonal state space models with one input and one output per channel.

h_t = λ h_{t-1} + x_t, y_t = 2 Re Σ_m c_m h_{t,m}.

λ = exp(log_radius + i·angle), one of each pair of conjugates (S4D, 2206.11893). Complex vectors are
stored as real ones: the real parts of all modes, then the imaginary parts. Their matrix products
are faster than complex ones, and compile.
Letters: b batch, t time, d channels, m modes, n = 2m real elements.
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
    """Compute the model from its definition, step by step: the reference of the functions below."""
    transition = torch.polar(log_radius.exp(), angle)
    readout = torch.complex(*output.chunk(2, -1))
    h = x.new_zeros(x.shape[0], *transition.shape) if state is None else torch.complex(*state.chunk(2, -1))
    outputs = []
    for token in x.unbind(1):
        h = transition * h + token[..., None]
        outputs.append(2 * (readout * h).sum(-1).real)
    return torch.stack(outputs, dim=1), torch.cat([h.real, h.imag], dim=-1)


def zero_order_hold(
    rate: Float[Tensor, "d m"], frequency: Float[Tensor, "d m"], step: Float[Tensor, "d 1"]
) -> tuple[Float[Tensor, "d m"], Float[Tensor, "d m"], Float[Tensor, "d 2*m"]]:
    """Discretise h' = A h + x, A = -rate + i·frequency, with x constant over a step Δ.

    Return the log radius and the angle of λ = e^{ΔA}, and (λ - 1) / A, the factor of the inputs.
    """
    log_radius, angle = -rate * step, frequency * step
    # λ - 1 without cancellation: cos a - 1 = -2 sin²(a/2).
    real = log_radius.expm1() * angle.cos() - 2 * (angle / 2).sin().square()
    imaginary = log_radius.exp() * angle.sin()
    squared_modulus = rate.square() + frequency.square()
    inverse = torch.cat([-rate / squared_modulus, -frequency / squared_modulus], dim=-1)
    return log_radius, angle, complex_product(torch.cat([real, imaginary], dim=-1), inverse)


def bilinear(
    rate: Float[Tensor, "d m"], frequency: Float[Tensor, "d m"], step: Float[Tensor, "d 1"]
) -> tuple[Float[Tensor, "d m"], Float[Tensor, "d m"], Float[Tensor, "d 2*m"]]:
    """Discretise h' = A h + x, A = -rate + i·frequency, by the trapezoidal rule over a step Δ.

    Return the log radius and the angle of λ = (1 + ΔA/2) / (1 - ΔA/2), and Δ / (1 - ΔA/2), the
    factor of the inputs.
    """
    decay, turn = rate * step, frequency * step
    divisor = (1 + decay / 2).square() + (turn / 2).square()  # |1 - ΔA/2|²
    # |λ|² = 1 - 2·decay / divisor. It is 0 at one point only, which is kept out of the logarithm.
    lost = (2 * decay / divisor).clamp(max=1 - torch.finfo(decay.dtype).eps)
    angle = torch.atan2(turn, 1 - (decay.square() + turn.square()) / 4)
    return 0.5 * torch.log1p(-lost), angle, torch.cat([1 + decay / 2, turn / 2], dim=-1) * (step / divisor).repeat(1, 2)


def complex_product(a: Float[Tensor, "*#b n"], b: Float[Tensor, "*#b n"]) -> Float[Tensor, "*b n"]:
    """Multiply complex vectors that store their real parts before their imaginary parts."""
    (p, q), (r, s) = a.chunk(2, -1), b.chunk(2, -1)
    return torch.cat([p * r - q * s, p * s + q * r], dim=-1)


def diagonal_kernel(
    log_radius: Float[Tensor, "d m"], angle: Float[Tensor, "d m"], output: Float[Tensor, "d 2*m"], length: int
) -> Float[Tensor, "d {length}"]:
    """Return K_l = 2 Re Σ_m c_m λ_m^l: the outputs y_0, y_1, ... for the single input x_0 = 1."""
    with autocast_off(output):
        return _sum_of_powers(output[None], log_radius, angle, length)[0]


def read_diagonal_state(
    state: Float[Tensor, "b d n"],
    log_radius: Float[Tensor, "d n//2"],
    angle: Float[Tensor, "d n//2"],
    output: Float[Tensor, "d n"],
    length: int,
) -> Float[Tensor, "b {length} d"]:
    """Return 2 Re Σ_m c_m λ_m^{l+1} h_m: the state's contribution to the next outputs."""
    with autocast_off(state):
        weights = complex_product(complex_product(state, output), _polar(log_radius, angle))
        return _sum_of_powers(weights, log_radius, angle, length).mT


def advance_diagonal_state(
    x: Float[Tensor, "b t d"],
    log_radius: Float[Tensor, "d m"],
    angle: Float[Tensor, "d m"],
    state: Float[Tensor, "b d 2*m"],
) -> Float[Tensor, "b d 2*m"]:
    """Return the state after x, λ^t h + Σ_j λ^{t-1-j} x_j.

    No tensor holds all modes of all tokens.
    """
    with autocast_off(x):
        b, t, d = x.shape
        num_blocks, block = _split_length(t)
        # Ordered by age: the last token, whose power is 0, comes first. Zeros before the first
        # token add nothing.
        by_age = F.pad(x.to(state.dtype).flip(1).permute(2, 0, 1), (0, num_blocks * block - t))
        block_sums = by_age.reshape(d, b * num_blocks, block) @ _powers(log_radius, angle, block)
        block_powers = _powers(log_radius, angle, num_blocks, block)
        increment = (
            complex_product(block_sums.unflatten(1, (b, num_blocks)), block_powers[:, None]).sum(2).transpose(0, 1)
        )
        return complex_product(state, _polar(t * log_radius, t * angle)) + increment


def _sum_of_powers(
    weights: Float[Tensor, "b d n"], log_radius: Float[Tensor, "d n//2"], angle: Float[Tensor, "d n//2"], length: int
) -> Float[Tensor, "b d {length}"]:
    """Return 2 Re Σ_m w_m λ_m^l.

    With l = a·block + r, these are the products of all w λ^{a·block} with all λ^r.
    """
    b, d, _ = weights.shape
    num_blocks, block = _split_length(length)
    block_powers = complex_product(
        weights.transpose(0, 1)[:, :, None], _powers(log_radius, angle, num_blocks, block)[:, None]
    )
    real, imaginary = block_powers.flatten(1, 2).chunk(2, -1)
    sums = torch.cat([2 * real, -2 * imaginary], dim=-1) @ _powers(log_radius, angle, block).mT
    return sums.view(d, b, -1)[..., :length].transpose(0, 1)


def _split_length(length: int) -> tuple[int, int]:
    """Return the number of blocks that cover `length` and their length, both about √length."""
    block = math.isqrt(length - 1) + 1
    return -(-length // block), block


def _powers(
    log_radius: Float[Tensor, "d m"], angle: Float[Tensor, "d m"], count: int, stride: int = 1
) -> Float[Tensor, "d {count} 2*m"]:
    """Return λ^0, λ^stride, λ^{2·stride}, ....

    Each is computed from its logarithm, so rounding errors do not accumulate.
    """
    exponents = torch.arange(0, count * stride, stride, dtype=angle.dtype, device=angle.device)[:, None]
    return _polar(exponents * log_radius[:, None], exponents * angle[:, None])


def _polar(log_radius: Float[Tensor, "*b m"], angle: Float[Tensor, "*b m"]) -> Float[Tensor, "*b 2*m"]:
    radius = flushed_exp(log_radius)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1)
