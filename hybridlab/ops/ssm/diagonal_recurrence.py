"""The complex recurrence h_t = λ h_{t-1} + x_t with one λ = exp(log_radius + i·angle) per channel, the same at every step.

Complex numbers are pairs of real ones here. Letters: b batch, n channels, t time, c tokens of a chunk.
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
    start: Float[Tensor, "b n 2"] | None = None,
) -> tuple[Float[Tensor, "b n 2 t"], Float[Tensor, "b n 2"]]:
    """Step through the recurrence: the definition of the op."""
    with autocast_off(x):
        dtype = accumulation_dtype(x)
        transition = torch.polar(log_radius.to(dtype).exp(), angle.to(dtype))
        inputs = torch.complex(*x.to(dtype).unbind(2))
        h = torch.zeros_like(inputs[..., 0]) if start is None else torch.complex(*start.unbind(2))
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
    start: Float[Tensor, "b n 2"] | None = None,
    chunk: int = 32,
) -> tuple[Float[Tensor, "b n 2 t"], Float[Tensor, "b n 2"]]:
    """Give what `recurrent_diagonal_recurrence` gives by matrix products, O(t·chunk); log_radius <= 0.

    Within a chunk: a triangular matrix of the powers of λ, which all chunks share. Between chunks: the same recurrence
    over what the chunks add, with λ^chunk, by the same function. States are in float32 at least.
    """
    with autocast_off(x):
        dtype, t = accumulation_dtype(x), x.shape[-1]
        x, log_radius, angle = x.to(dtype), log_radius.to(dtype), angle.to(dtype)
        if start is None:
            start = x.new_zeros(x.shape[:3])
        h = _over_chunks(x, log_radius, angle, start, chunk)
        return h, h[..., t - 1]


def _over_chunks(x: Tensor, log_radius: Tensor, angle: Tensor, start: Tensor, chunk: int) -> Tensor:
    t = x.shape[-1]
    chunk = min(chunk, t)
    if missing := -t % chunk:
        x = F.pad(x, (0, missing))
    real, imaginary = x.unflatten(-1, (-1, chunk)).unbind(2)  # b n chunks c
    powers = _powers(log_radius, angle, chunk)
    if real.shape[2] == 1:
        starts = start[..., None]
    else:
        # The last column of the powers is what each chunk adds to its end.
        p, q = powers[:, :, 1:, :, -1].unbind(1)  # n c 2: from a real part, and from an imaginary one
        added = (real @ p + imaginary @ q).transpose(2, 3)  # b n 2 chunks
        # Chunks of one token leave as many as there were: the next level takes at least two.
        ends = _over_chunks(added, chunk * log_radius, chunk * angle, start, max(chunk, 2))
        starts = torch.cat([start[..., None], ends[..., :-1]], dim=-1)
    # What came before is one more input, a step before the first of the chunk.
    first_real, first_imaginary = starts[..., None].unbind(2)
    inputs = torch.cat([first_real, real, first_imaginary, imaginary], dim=-1)
    h = (inputs @ powers.flatten(3).flatten(1, 2)).unflatten(-1, (2, chunk))  # b n chunks 2 c
    h = h.transpose(2, 3).flatten(3)
    return h[..., :t] if missing else h


def _powers(log_radius: Tensor, angle: Tensor, chunk: int) -> Float[Tensor, "n 2 c+1 2 c"]:
    """Return λ^{r+1-j} for r + 1 >= j and 0 elsewhere, from the parts of an input j to the parts of a state r."""
    exponent = torch.arange(chunk + 1, dtype=angle.dtype, device=angle.device)
    radius, turns = (log_radius[:, None] * exponent).exp(), angle[:, None] * exponent
    real, imaginary = radius * turns.cos(), radius * turns.sin()
    # Rows of a Toeplitz matrix are windows on its diagonals, here n 2 2 2c of them. Negative exponents are never taken:
    # they could overflow.
    diagonals = torch.stack([real, imaginary, -imaginary, real], dim=1).unflatten(1, (2, 2))
    return F.pad(diagonals, (chunk - 1, 0)).unfold(-1, chunk, 1).flip(3).transpose(2, 3)
