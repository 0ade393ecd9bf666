"""What is left of numbers that fade, and that nothing subnormal comes of it."""

import torch
from torch import Tensor

from hybridlab.mixers.parts.implicit_filter import ImplicitFilter
from hybridlab.ops.ssm.diagonal_ssm import diagonal_kernel
from hybridlab.ops.ssm.dplr_ssm import doubled_powers, responses
from hybridlab.ops.ssm.flush_to_zero import flushed, flushed_exp

LENGTH = 20_000  # powers of the numbers below go through all that float32 has


def subnormal(x: Tensor) -> int:
    return int(((x != 0) & (x.abs() < torch.finfo(x.dtype).tiny)).sum())


def test_products_of_what_is_left_are_normal() -> None:
    x = torch.logspace(-45, 3, 1000)
    left = flushed(x)
    assert subnormal(x.outer(x)) > 0
    assert subnormal(left.outer(left)) == 0
    torch.testing.assert_close(flushed(-x), -x, rtol=1e-6, atol=3e-19)
    torch.testing.assert_close(left, x, rtol=1e-6, atol=3e-19)


def test_products_of_exponentials_are_normal() -> None:
    x = torch.linspace(-100, 10, 1000, requires_grad=True)
    left = flushed_exp(x)
    (slope,) = torch.autograd.grad(left.sum(), x)
    assert subnormal(left.outer(left)) == 0
    assert torch.equal(left[x > -43], x[x > -43].exp())
    assert not left[x < -44].any()
    assert torch.equal(slope, left)


def test_long_filter_fades_to_zero() -> None:
    torch.manual_seed(0)
    made = ImplicitFilter(width=8, hidden=16, bands=4, horizon=1024, sine_frequency=10.0)
    assert subnormal(made(LENGTH, torch.zeros(1))) == 0


def test_long_diagonal_kernel_fades_to_zero() -> None:
    torch.manual_seed(0)
    log_radius, angle, output = -0.01 - 0.1 * torch.rand(8, 4), torch.randn(8, 4), torch.randn(8, 8)
    assert subnormal(diagonal_kernel(log_radius, angle, output, LENGTH)) == 0


def test_long_responses_fade_to_zero() -> None:
    torch.manual_seed(0)
    powers = doubled_powers(torch.diag_embed(0.9 + 0.1 * torch.rand(8, 4)), LENGTH)
    assert sum(map(subnormal, powers)) == 0
    assert subnormal(responses(powers, torch.randn(8, 4, 1), torch.randn(8, 1, 4), LENGTH)) == 0
