"""HiPPO-LegS: the matrix that stores a history as Legendre coefficients.

S4 uses its diagonal plus low-rank form.

Letters: n state size, m = n / 2 pairs of conjugates.
"""

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def legs(state: int) -> tuple[Float[Tensor, "{state} {state}"], Float[Tensor, " {state}"]]:
    """Return A and B of x' = A x + B u, in float64 on the CPU.

    HiPPO 2008.07669, theorem 2; S4 2111.00396, equation 2.

    A_nk = -√(2n+1)√(2k+1) below the diagonal, -(n+1) on it and 0 above it; B_n = √(2n+1).
    """
    index = torch.arange(state, dtype=torch.float64, device="cpu")
    drive = (2 * index + 1).sqrt()
    return -(drive[:, None] * drive).tril(-1) - torch.diag(index + 1), drive


def legs_diagonal_plus_low_rank(
    state: int,
) -> tuple[Float[Tensor, " m"], Complex[Tensor, " m"], Complex[Tensor, " m"]]:
    """Return ω, P and V*B, where V*AV = diag(-½ + iω) - P P* (S4, theorem 1).

    Of each pair of conjugates, the one with ω > 0 is returned. `state` is even. With p_n = √(n+½),
    A + p pᵀ is -½ I plus a skew-symmetric matrix, which a unitary V diagonalises.
    """
    matrix, drive = legs(state)
    low_rank = drive / 2**0.5
    skew = matrix + low_rank[:, None] * low_rank + 0.5 * torch.eye(state, dtype=matrix.dtype, device="cpu")
    frequencies, basis = torch.linalg.eigh(-1j * skew)  # ascending, in pairs of ±ω
    positive = basis[:, state // 2 :].mH
    return frequencies[state // 2 :], positive @ low_rank.to(basis.dtype), positive @ drive.to(basis.dtype)
