"""State space models with a diagonal plus low-rank matrix (DPLR): S4, 2111.00396.

Each channel has one input and one output. h_t = Ā h_{t-1} + B̄ x_t, y_t = c·h_t. All tensors are
real. The state holds one of each pair of conjugates: its real parts, then its imaginary parts, on
which a complex linear map acts as a real one. Letters: b batch, t time, d channels, m pairs of
conjugates, n = 2m state size, s initial states, r readouts, l powers of Ā.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.precision import autocast_off
from hybridlab.ops.ssm.flush_to_zero import flush_to_zero


def recurrent_ssm(
    x: Float[Tensor, "b t d"],
    transition: Float[Tensor, "d n n"],
    drive: Float[Tensor, "d n"],
    readout: Float[Tensor, "d n"],
    state: Float[Tensor, "b d n"] | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b d n"]]:
    """Compute the model from its definition, step by step: the reference of the functions below."""
    h = x.new_zeros(x.shape[0], *drive.shape) if state is None else state
    outputs = []
    for token in x.unbind(1):
        h = (transition @ h[..., None]).squeeze(-1) + drive * token[..., None]
        outputs.append((readout * h).sum(-1))
    return torch.stack(outputs, dim=1), h


def bilinear_dplr(
    rate: Float[Tensor, "d m"],
    frequency: Float[Tensor, "d m"],
    low_rank: Float[Tensor, "d 2*m"],
    drive: Float[Tensor, "d 2*m"],
    step: Float[Tensor, "d 1"],
) -> tuple[Float[Tensor, "d 2*m 2*m"], Float[Tensor, "d 2*m"]]:
    """Discretise a DPLR matrix A = diag(-rate + i·frequency) - P P* by the bilinear rule.

    Return Ā = (I - Δ/2 A)⁻¹ (I + Δ/2 A) and B̄ = (I - Δ/2 A)⁻¹ Δ B.

    The inverse is diagonal plus low-rank too (Woodbury): E - (Δ/2) E P P* E / (1 + (Δ/2) P* E P),
    with the diagonal E = (I - Δ/2 Λ)⁻¹. P P* also couples the stored elements to their omitted
    conjugates: P* z = 2 Re Σ_m conj(P_m) z_m. Rates are positive, so the dynamics of A are stable
    and no power of Ā grows.
    """
    half = step / 2
    denominator_real, denominator_imag = 1 + half * rate, half * frequency
    squared_modulus = denominator_real.square() + denominator_imag.square()
    real, imaginary = denominator_real / squared_modulus, denominator_imag / squared_modulus  # E
    p, q = low_rank.chunk(2, -1)
    column = torch.cat([real * p - imaginary * q, real * q + imaginary * p], dim=-1)  # E P
    row = 2 * torch.cat([real * p + imaginary * q, real * q - imaginary * p], dim=-1)  # P* E
    overlap = 2 * ((p.square() + q.square()) * real).sum(-1, keepdim=True)  # P* E P
    scaled = half / (1 + half * overlap) * column
    blocks = torch.stack([torch.stack([real, -imaginary], -2), torch.stack([imaginary, real], -2)], -3)
    inverse = torch.diag_embed(blocks).permute(0, 1, 3, 2, 4).flatten(3, 4).flatten(1, 2)
    inverse = inverse - scaled[..., :, None] * row[..., None, :]
    identity = torch.eye(inverse.shape[-1], dtype=inverse.dtype, device=inverse.device)
    return 2 * inverse - identity, step * (inverse @ drive[..., None]).squeeze(-1)


def repeated_squares(transition: Float[Tensor, "d n n"], length: int) -> list[Float[Tensor, "d n n"]]:
    """Return Ā, Ā², Ā⁴, ..., the squares that compose up to `length` steps."""
    powers = [transition]
    for _ in range(length.bit_length() - 1):
        powers.append(flush_to_zero(powers[-1] @ powers[-1]))
    return powers


def responses(
    powers: Sequence[Float[Tensor, "d n n"]],
    initial_states: Float[Tensor, "d n s"],
    readouts: Float[Tensor, "d r n"],
    length: int,
) -> Float[Tensor, "d r s {length}"]:
    """Return c Ā^l h, the outputs after an initial state h, for all given h and readouts c.

    With l = a·block + r, these are the products of all c Ā^{a·block} with all Ā^r h. Each further
    power of Ā doubles the number of either factor, so there is no loop over l. No parameter depends
    on the kernel's length, unlike in S4's generating function, which needs c (I - Ā^l), another c
    for every length.
    """
    block_levels, levels = _levels(length)
    columns = _columns(powers[:block_levels], initial_states)
    rows = readouts[:, :, None]  # d r a n
    for power in powers[block_levels:levels]:
        rows = torch.cat([rows, flush_to_zero(rows @ power[:, None])], dim=2)
    out = (rows.flatten(1, 2) @ columns.flatten(2)).unflatten(2, columns.shape[2:]).unflatten(1, rows.shape[1:3])
    return out.transpose(2, 3).flatten(3)[..., :length]  # d r a s block


def advance_state(
    x: Float[Tensor, "b t d"],
    powers: Sequence[Float[Tensor, "d n n"]],
    drive: Float[Tensor, "d n"],
    state: Float[Tensor, "b d n"],
) -> Float[Tensor, "b d n"]:
    """Return the state after x, Ā^t h + Σ_j Ā^{t-1-j} B̄ x_j.

    No tensor holds the states of all tokens.
    """
    with autocast_off(x):
        t = x.shape[1]
        block_levels, levels = _levels(t)
        # Ordered by age: the last token, whose power is 0, comes first. Zeros before the first
        # token add nothing.
        by_age = F.pad(x.to(state.dtype).flip(1).permute(2, 0, 1), (0, (1 << levels) - t)).unflatten(
            2, (-1, 1 << block_levels)
        )
        increment = by_age.flatten(1, 2) @ _columns(powers[:block_levels], drive[..., None])[:, :, 0].mT
        increment = increment.unflatten(1, (x.shape[0], -1))  # d b blocks n
        for power in powers[block_levels:levels]:
            increment = increment[:, :, ::2] + increment[:, :, 1::2] @ power.mT[:, None]
        carried = state.transpose(0, 1)
        for level, power in enumerate(powers):
            if t >> level & 1:
                carried = carried @ power.mT
        return (carried + increment[:, :, 0]).transpose(0, 1)


def _levels(length: int) -> tuple[int, int]:
    """Return the binary logarithms of two lengths.

    They are the length of a block, about √length, and the power of two that covers `length`.
    """
    levels = (length - 1).bit_length()
    return (levels + 1) // 2, levels


def _columns(
    powers: Sequence[Float[Tensor, "d n n"]], initial_states: Float[Tensor, "d n s"]
) -> Float[Tensor, "d n s l"]:
    """Return h, Ā h, Ā² h, ..., as many as the given powers compose."""
    columns = initial_states[..., None]
    for power in powers:
        next_columns = flush_to_zero(power @ columns.flatten(2)).view(columns.shape)
        columns = torch.cat([columns, next_columns], dim=-1)
    return columns
