"""The blockwise inverse against substitution, in particular if keys repeat."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.linear.triangular_inverse import substituted_unit_lower_inverse, unit_lower_inverse


@pytest.mark.parametrize("size", [1, 2, 3, 8, 16, 17, 31, 32, 33, 64, 100, 128])
def test_blocks_match_substitution(size: int) -> None:
    torch.manual_seed(size)
    a = (torch.randn(2, 3, size, size, dtype=torch.float64) / size**0.5).requires_grad_()
    found, expected = unit_lower_inverse(a), substituted_unit_lower_inverse(a)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    grad_outputs = torch.randn_like(found)
    gradients = (torch.autograd.grad(each, a, grad_outputs)[0] for each in (found, expected))
    torch.testing.assert_close(next(gradients), next(gradients), rtol=1e-8, atol=1e-8)


def test_gradients_are_those_of_the_function() -> None:
    a = torch.randn(2, 9, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit_lower_inverse, (a,), fast_mode=True)


@pytest.mark.parametrize("strength", [0.5, 1.0, 1.9, 2.0])
@pytest.mark.parametrize("spread", [0.0, 0.01, 0.3])
def test_similar_keys_lose_no_precision_in_float32(strength: float, spread: float) -> None:
    torch.manual_seed(0)
    key = torch.randn(8, 1, 64, dtype=torch.float64)
    keys = F.normalize(key + spread * torch.randn(8, 64, 64, dtype=torch.float64), dim=-1)
    a = strength * keys @ keys.mT
    exact = substituted_unit_lower_inverse(a)
    blocks, substituted = (error(inverse(a.float()), exact) for inverse in METHODS)
    assert blocks < 1e-4
    assert blocks < 10 * substituted + 1e-5


METHODS = (unit_lower_inverse, substituted_unit_lower_inverse)


def error(found: Tensor, exact: Tensor) -> float:
    return ((found.double() - exact).abs().max() / exact.abs().max()).item()
