"""Substitution in unit lower triangular systems."""

import pytest
import torch

from hybridlab.ops.linear.triangular import solve_unit_lower


@pytest.mark.parametrize("c", [1, 2, 7, 32])
def test_solutions_are_those_of_the_dense_system(c: int) -> None:
    torch.manual_seed(c)
    below = torch.randn(2, 3, c, c, dtype=torch.float64, requires_grad=True)
    right = torch.randn(2, 3, c, 5, dtype=torch.float64, requires_grad=True)
    found = solve_unit_lower(below, right)
    wanted = torch.linalg.solve(torch.eye(c, dtype=torch.float64) + below.tril(-1), right)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    into = torch.randn_like(found)
    gradients = (torch.autograd.grad(each, [below, right], into) for each in (found, wanted))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


def test_keys_that_are_all_alike_cost_no_digits_in_float32() -> None:
    # The inverse is the difference of a token and the one before it; powers of the matrix reach 10^17.
    found = solve_unit_lower(torch.ones(64, 64), torch.eye(64))
    torch.testing.assert_close(found, torch.eye(64) - torch.ones(63).diag(-1))
