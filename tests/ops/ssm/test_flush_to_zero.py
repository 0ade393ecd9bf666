"""Flushed values are zero or accurate, and their products are never subnormal."""

import torch
from torch import Tensor

from hybridlab.mixers.parts.implicit_filter import ImplicitFilter
from hybridlab.ops.ssm.diagonal_ssm import diagonal_kernel
from hybridlab.ops.ssm.dplr_ssm import repeated_squares, responses
from hybridlab.ops.ssm.flush_to_zero import flush_to_zero, flushed_exp

LENGTH = 20_000  # the powers below pass through the whole range of float32


def count_subnormal(x: Tensor) -> int:
    return int(((x != 0) & (x.abs() < torch.finfo(x.dtype).tiny)).sum())


def test_products_of_flushed_values_are_not_subnormal() -> None:
    x = torch.logspace(-45, 3, 1000)
    result = flush_to_zero(x)
    assert count_subnormal(x.outer(x)) > 0
    assert count_subnormal(result.outer(result)) == 0
    torch.testing.assert_close(flush_to_zero(-x), -x, rtol=1e-6, atol=3e-19)
    torch.testing.assert_close(result, x, rtol=1e-6, atol=3e-19)


def test_products_of_flushed_exponentials_are_not_subnormal() -> None:
    x = torch.linspace(-100, 10, 1000, requires_grad=True)
    result = flushed_exp(x)
    (slope,) = torch.autograd.grad(result.sum(), x)
    assert count_subnormal(result.outer(result)) == 0
    assert torch.equal(result[x > -43], x[x > -43].exp())
    assert not result[x < -44].any()
    assert torch.equal(slope, result)


def test_long_filter_fades_to_zero() -> None:
    torch.manual_seed(0)
    filters = ImplicitFilter(width=8, hidden=16, bands=4, horizon=1024, sine_layers=3, sine_frequency=10.0, lr=None)
    assert count_subnormal(filters(LENGTH, torch.zeros(1))) == 0


def test_long_diagonal_kernel_fades_to_zero() -> None:
    torch.manual_seed(0)
    log_radius, angle, output = -0.01 - 0.1 * torch.rand(8, 4), torch.randn(8, 4), torch.randn(8, 8)
    assert count_subnormal(diagonal_kernel(log_radius, angle, output, LENGTH)) == 0


def test_long_responses_fade_to_zero() -> None:
    torch.manual_seed(0)
    powers = repeated_squares(torch.diag_embed(0.9 + 0.1 * torch.rand(8, 4)), LENGTH)
    assert sum(map(count_subnormal, powers)) == 0
    assert count_subnormal(responses(powers, torch.randn(8, 4, 1), torch.randn(8, 1, 4), LENGTH)) == 0
