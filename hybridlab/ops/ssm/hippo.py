"""HiPPO-LegS: the matrix that keeps a history as its Legendre coefficients, in the diagonal form that S4 works with."""

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def legs(state: int) -> tuple[Float[Tensor, "n n"], Float[Tensor, " n"]]:
    """Return A and B of x' = A x + B u, in float64 on the CPU (HiPPO 2008.07669, theorem 2; S4 2111.00396, equation 2).

    A_nk = -√(2n+1)√(2k+1) below the diagonal, -(n+1) on it and 0 above it; B_n = √(2n+1).
    """
    index = torch.arange(state, dtype=torch.float64, device="cpu")
    drive = (2 * index + 1).sqrt()
    return -(drive[:, None] * drive).tril(-1) - torch.diag(index + 1), drive


def legs_diagonal_plus_low_rank(
    state: int,
) -> tuple[Float[Tensor, " m"], Complex[Tensor, " m"], Complex[Tensor, " m"]]:
    """Return ω, P and B with V*AV = diag(-½ + iω) - P P*, V*B (S4, theorem 1): one of each pair of conjugates, ω > 0.

    For an even state n = 2m. A + p pᵀ with p_n = √(n+½) is -½ I and a skew matrix, which a unitary V makes diagonal.
    """
    matrix, drive = legs(state)
    low_rank = drive / 2**0.5
    skew = matrix + low_rank[:, None] * low_rank + 0.5 * torch.eye(state, dtype=matrix.dtype, device="cpu")
    frequencies, basis = torch.linalg.eigh(-1j * skew)  # ascending, in pairs of ±ω
    positive = basis[:, state // 2 :].mH
    return frequencies[state // 2 :], positive @ low_rank.to(basis.dtype), positive @ drive.to(basis.dtype)
