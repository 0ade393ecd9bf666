"""State space models whose matrix is diagonal plus low-rank (DPLR), one input and one output per channel: S4, 2111.00396.

h_t = Ā h_{t-1} + B̄ x_t, y_t = c·h_t. All numbers are real: with one of each pair of conjugates, a complex linear map is
a real one of the real parts, which stand first, and the imaginary parts.
Letters: b batch, t time, d channels, m pairs of conjugates, n = 2m numbers of a state, l tokens of a kernel.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.precision import autocast_off
from hybridlab.ops.ssm.flush_to_zero import flushed


def recurrent_ssm(
    x: Float[Tensor, "b t d"],
    transition: Float[Tensor, "d n n"],
    drive: Float[Tensor, "d n"],
    readout: Float[Tensor, "d n"],
    state: Float[Tensor, "b d n"] | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b d n"]]:
    """Step through the recurrence: the definition of what the functions below give all at once."""
    h = x.new_zeros(x.shape[0], *drive.shape) if state is None else state
    outputs = []
    for token in x.unbind(1):
        h = (transition @ h[..., None]).squeeze(-1) + drive * token[..., None]
        outputs.append((readout * h).sum(-1))
    return torch.stack(outputs, dim=1), h


def bilinear_dplr(
    rate: Float[Tensor, "d m"],
    frequency: Float[Tensor, "d m"],
    low_rank: Float[Tensor, "d n"],
    drive: Float[Tensor, "d n"],
    step: Float[Tensor, "d 1"],
) -> tuple[Float[Tensor, "d n n"], Float[Tensor, "d n"]]:
    """Return Ā = (I - Δ/2 A)⁻¹ (I + Δ/2 A) and B̄ = (I - Δ/2 A)⁻¹ Δ B for A = diag(-rate + i·frequency) - P P*.

    The inverse is diagonal plus low-rank too (Woodbury): E - (Δ/2) E P P* E / (1 + (Δ/2) P* E P), with the diagonal
    E = (I - Δ/2 Λ)⁻¹. P P* also joins what is kept to the conjugates that are not: P* z = 2 Re Σ_m conj(P_m) z_m.
    Rates are positive, so A makes nothing grow, and neither does Ā: no power of it does.
    """
    half = step / 2
    damping, turning = 1 + half * rate, half * frequency
    size = damping.square() + turning.square()
    real, imaginary = damping / size, turning / size  # E
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


def doubled_powers(transition: Float[Tensor, "d n n"], length: int) -> list[Float[Tensor, "d n n"]]:
    """Return Ā, Ā², Ā⁴ ...: those that `length` steps are made of."""
    powers = [transition]
    for _ in range(length.bit_length() - 1):
        powers.append(flushed(powers[-1] @ powers[-1]))
    return powers


def responses(
    powers: Sequence[Float[Tensor, "d n n"]],
    starts: Float[Tensor, "d n s"],
    readouts: Float[Tensor, "d r n"],
    length: int,
) -> Float[Tensor, "d r s l"]:
    """Return c Ā^l h for all starts h and readouts c: the outputs that a state leaves.

    With l = a·block + r it is a product of all c Ā^{a·block} with all Ā^r h, and each of these doubles its number with
    one more power of Ā: no loop over l, and nothing that depends on how long the kernel is (S4's generating function
    needs c (I - Ā^l), another c at every length).
    """
    fine, levels = _levels(length)
    columns = _columns(powers[:fine], starts)
    rows = readouts[:, :, None]  # d r a n
    for power in powers[fine:levels]:
        rows = torch.cat([rows, flushed(rows @ power[:, None])], dim=2)
    out = (rows.flatten(1, 2) @ columns.flatten(2)).unflatten(2, columns.shape[2:]).unflatten(1, rows.shape[1:3])
    return out.transpose(2, 3).flatten(3)[..., :length]  # d r a s block


def carry_state(
    x: Float[Tensor, "b t d"],
    powers: Sequence[Float[Tensor, "d n n"]],
    drive: Float[Tensor, "d n"],
    state: Float[Tensor, "b d n"],
) -> Float[Tensor, "b d n"]:
    """Return Ā^t h + Σ_j Ā^{t-1-j} B̄ x_j: the state after x. No tensor holds all tokens of all states."""
    with autocast_off(x):
        t = x.shape[1]
        fine, levels = _levels(t)
        # By age: the last token, whose power is 0, comes first. Zeros before the first token add nothing.
        aged = F.pad(x.to(state.dtype).flip(1).permute(2, 0, 1), (0, (1 << levels) - t)).unflatten(2, (-1, 1 << fine))
        added = aged.flatten(1, 2) @ _columns(powers[:fine], drive[..., None])[:, :, 0].mT
        added = added.unflatten(1, (x.shape[0], -1))  # d b blocks n
        for power in powers[fine:levels]:
            added = added[:, :, ::2] + added[:, :, 1::2] @ power.mT[:, None]
        left = state.transpose(0, 1)
        for level, power in enumerate(powers):
            if t >> level & 1:
                left = left @ power.mT
        return (left + added[:, :, 0]).transpose(0, 1)


def _levels(length: int) -> tuple[int, int]:
    """Return the binary logarithms of a block, which is about √length, and of the power of two that holds `length`."""
    levels = (length - 1).bit_length()
    return (levels + 1) // 2, levels


def _columns(powers: Sequence[Float[Tensor, "d n n"]], starts: Float[Tensor, "d n s"]) -> Float[Tensor, "d n s block"]:
    """Return h, Ā h, Ā² h ... for as many as the powers reach."""
    columns = starts[..., None]
    for power in powers:
        later = flushed(power @ columns.flatten(2)).view(columns.shape)
        columns = torch.cat([columns, later], dim=-1)
    return columns
