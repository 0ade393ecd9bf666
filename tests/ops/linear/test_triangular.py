"""Solutions of unit lower triangular systems."""

import pytest
import torch

from hybridlab.ops.linear.triangular import solve_unit_lower


@pytest.mark.parametrize("c", [1, 2, 7, 32])
def test_solutions_are_those_of_the_dense_system(c: int) -> None:
    torch.manual_seed(c)
    lower = torch.randn(2, 3, c, c, dtype=torch.float64, requires_grad=True)
    rhs = torch.randn(2, 3, c, 5, dtype=torch.float64, requires_grad=True)
    found = solve_unit_lower(lower, rhs)
    expected = torch.linalg.solve(torch.eye(c, dtype=torch.float64) + lower.tril(-1), rhs)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    grad_outputs = torch.randn_like(found)
    gradients = (torch.autograd.grad(each, [lower, rhs], grad_outputs) for each in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


def test_equal_keys_lose_no_precision_in_float32() -> None:
    # The inverse takes the difference between each token and the previous one; powers of the matrix
    # reach 10^17.
    found = solve_unit_lower(torch.ones(64, 64), torch.eye(64))
    torch.testing.assert_close(found, torch.eye(64) - torch.ones(63).diag(-1))
