"""HiPPO-LegS against the Legendre polynomials of the past that it represents."""

import math

import pytest
import torch

from hybridlab.ops.ssm.hippo import legs, legs_diagonal_plus_low_rank


def test_first_entries() -> None:
    matrix, drive = legs(3)
    expected = [[-1, 0, 0], [-math.sqrt(3), -2, 0], [-math.sqrt(5), -math.sqrt(15), -3]]
    torch.testing.assert_close(matrix, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(drive, torch.tensor([1, 3, 5], dtype=torch.float64).sqrt())


@pytest.mark.parametrize("age", [0.0, 0.1, 1.0, 3.0])
def test_impulse_response_is_legendre_polynomials(age: float) -> None:
    """Compare e^{sA} B with √(2n+1) P_n(2e^{-s} - 1) e^{-s}, where Bonnet's recursion gives P_n."""
    matrix, drive = legs(7)
    at = 2 * math.exp(-age) - 1
    polynomials = [1.0, at]
    for n in range(1, 6):
        polynomials.append(((2 * n + 1) * at * polynomials[n] - n * polynomials[n - 1]) / (n + 1))
    expected = torch.tensor([math.sqrt(2 * n + 1) * p * math.exp(-age) for n, p in enumerate(polynomials)])
    found = torch.linalg.matrix_exp(age * matrix) @ drive
    torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("state", [2, 8, 64, 128])
def test_diagonal_plus_low_rank_form_has_the_same_dynamics(state: int) -> None:
    """Compare the transfer function B* (s - A)⁻¹ B, which no change of basis alters."""
    frequency, low_rank, drive = legs_diagonal_plus_low_rank(state)
    assert (frequency > 0).all()
    p, b = (torch.cat([each, each.conj()]) for each in (low_rank, drive))
    diagonal = -0.5 + 1j * torch.cat([frequency, -frequency])
    found = torch.diag(diagonal) - p[:, None] * p.conj()
    matrix, dense_drive = (each.to(found.dtype) for each in legs(state))
    identity = torch.eye(state, dtype=found.dtype)
    for s in (0.3, 1.0 + 2.0j, 40.0j):
        transfer = b.conj() @ torch.linalg.solve(s * identity - found, b)
        expected = dense_drive @ torch.linalg.solve(s * identity - matrix, dense_drive)
        torch.testing.assert_close(transfer, expected, rtol=1e-8, atol=1e-8)


def test_constants_have_values_if_the_default_device_is_meta() -> None:
    with torch.device("meta"):
        found = legs_diagonal_plus_low_rank(4)
    torch.testing.assert_close(found, legs_diagonal_plus_low_rank(4))
