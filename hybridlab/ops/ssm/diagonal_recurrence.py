"""The complex recurrence h_t = λ h_{t-1} + x_t with a constant λ per channel.

λ = exp(log_radius + i·angle).

Complex numbers are stored as pairs of real ones. Letters: b batch, n channels, t time, c tokens of
a chunk, e = c + 1.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.precision import accumulation_dtype, autocast_off


def recurrent_diagonal_recurrence(
    x: Float[Tensor, "b n 2 t"],
    log_radius: Float[Tensor, " n"],
    angle: Float[Tensor, " n"],
    initial_state: Float[Tensor, "b n 2"] | None = None,
) -> tuple[Float[Tensor, "b n 2 t"], Float[Tensor, "b n 2"]]:
    """Compute the op from its definition, step by step."""
    with autocast_off(x):
        dtype = accumulation_dtype(x)
        transition = torch.polar(log_radius.to(dtype).exp(), angle.to(dtype))
        inputs = torch.complex(*x.to(dtype).unbind(2))
        h = torch.zeros_like(inputs[..., 0]) if initial_state is None else torch.complex(*initial_state.unbind(2))
        states = []
        for step in inputs.unbind(-1):
            h = transition * h + step
            states.append(h)
        stacked = torch.stack(states, dim=-1)
        return torch.stack([stacked.real, stacked.imag], dim=2), torch.stack([h.real, h.imag], dim=2)


def chunked_diagonal_recurrence(
    x: Float[Tensor, "b n 2 t"],
    log_radius: Float[Tensor, " n"],
    angle: Float[Tensor, " n"],
    initial_state: Float[Tensor, "b n 2"] | None = None,
    chunk: int = 32,
) -> tuple[Float[Tensor, "b n 2 t"], Float[Tensor, "b n 2"]]:
    """Compute `recurrent_diagonal_recurrence` by matrix products in O(t·chunk); log_radius <= 0.

    Within chunks: a triangular matrix of powers of λ, shared by all chunks. Between chunks: the
    same recurrence, with λ^chunk, over the chunks' increments. States are in at least float32.
    """
    with autocast_off(x):
        dtype, t = accumulation_dtype(x), x.shape[-1]
        x, log_radius, angle = x.to(dtype), log_radius.to(dtype), angle.to(dtype)
        if initial_state is None:
            initial_state = x.new_zeros(x.shape[:3])
        h = _scan_chunks(x, log_radius, angle, initial_state, chunk)
        return h, h[..., t - 1]


def _scan_chunks(x: Tensor, log_radius: Tensor, angle: Tensor, initial_state: Tensor, chunk: int) -> Tensor:
    t = x.shape[-1]
    chunk = min(chunk, t)
    if missing := -t % chunk:
        x = F.pad(x, (0, missing))
    real, imaginary = x.unflatten(-1, (-1, chunk)).unbind(2)  # b n chunks c
    powers = _powers(log_radius, angle, chunk)
    if real.shape[2] == 1:
        chunk_starts = initial_state[..., None]
    else:
        # The last column of the powers gives what each chunk adds to the state at its end.
        from_real, from_imaginary = powers[:, :, 1:, :, -1].unbind(1)  # n c 2
        chunk_increments = (real @ from_real + imaginary @ from_imaginary).transpose(2, 3)  # b n 2 chunks
        # With chunks of one token, the number of chunks would not shrink: the next level uses at
        # least two.
        chunk_ends = _scan_chunks(chunk_increments, chunk * log_radius, chunk * angle, initial_state, max(chunk, 2))
        chunk_starts = torch.cat([initial_state[..., None], chunk_ends[..., :-1]], dim=-1)
    # The state before the chunk is one more input, a step before the first token.
    first_real, first_imaginary = chunk_starts[..., None].unbind(2)
    inputs = torch.cat([first_real, real, first_imaginary, imaginary], dim=-1)
    h = (inputs @ powers.flatten(3).flatten(1, 2)).unflatten(-1, (2, chunk))  # b n chunks 2 c
    h = h.transpose(2, 3).flatten(3)
    return h[..., :t] if missing else h


def _powers(log_radius: Tensor, angle: Tensor, chunk: int) -> Float[Tensor, "n 2 e 2 c"]:
    """Return λ^{r+1-j} for r + 1 >= j, and 0 elsewhere.

    The matrix maps the two parts of input j to the two parts of state r.
    """
    exponent = torch.arange(chunk + 1, dtype=angle.dtype, device=angle.device)
    radius, phase = (log_radius[:, None] * exponent).exp(), angle[:, None] * exponent
    real, imaginary = radius * phase.cos(), radius * phase.sin()
    # The rows of a Toeplitz matrix are windows of its sequence of diagonals, which is n 2 2 2c
    # here. Negative exponents, which could overflow, are never computed.
    diagonals = torch.stack([real, imaginary, -imaginary, real], dim=1).unflatten(1, (2, 2))
    return F.pad(diagonals, (chunk - 1, 0)).unfold(-1, chunk, 1).flip(3).transpose(2, 3)
