"""The kernel, the readout and the state of a diagonal state space model against its recurrence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hybridlab.ops.conv.fft_conv import fft_conv
from hybridlab.ops.ssm.diagonal_ssm import (
    advance_diagonal_state,
    bilinear,
    diagonal_kernel,
    read_diagonal_state,
    recurrent_diagonal_ssm,
    zero_order_hold,
)


def run_at_once(x: Tensor, log_radius: Tensor, angle: Tensor, output: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    t = x.shape[1]
    y = fft_conv(x, diagonal_kernel(log_radius, angle, output, t))
    y = y + read_diagonal_state(state, log_radius, angle, output, t)
    return y, advance_diagonal_state(x, log_radius, angle, state)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    t=st.one_of(st.integers(1, 40), st.sampled_from([99, 100, 101, 150])),
    modes=st.sampled_from([1, 3, 8]),
    strength=st.sampled_from([0.0, 0.01, 1.0, 100.0]),
)
def test_kernel_readout_and_state_match_the_recurrence(t: int, modes: int, strength: float) -> None:
    torch.manual_seed(t)
    x, state = torch.randn(2, t, 3, dtype=torch.float64), torch.randn(2, 3, 2 * modes, dtype=torch.float64)
    log_radius = -strength * torch.rand(3, modes, dtype=torch.float64)
    angle, output = 4 * torch.randn(3, modes, dtype=torch.float64), torch.randn(3, 2 * modes, dtype=torch.float64)
    variables = [each.requires_grad_() for each in (x, log_radius, angle, output, state)]
    found, expected = run_at_once(*variables), recurrent_diagonal_ssm(*variables)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    grad_outputs = [torch.randn_like(each) for each in expected]
    torch.testing.assert_close(
        *(torch.autograd.grad(pair, variables, grad_outputs) for pair in (found, expected)), rtol=1e-7, atol=1e-7
    )


def test_kernels_of_all_lengths_share_their_beginning() -> None:
    log_radius, angle, output = -torch.rand(2, 4).double(), torch.randn(2, 4).double(), torch.randn(2, 8).double()
    longest = diagonal_kernel(log_radius, angle, output, 200)
    for length in (1, 2, 3, 4, 5, 63, 64, 65, 199):
        found = diagonal_kernel(log_radius, angle, output, length)
        torch.testing.assert_close(found, longest[:, :length], rtol=1e-11, atol=1e-11)


def test_zero_order_hold_matches_the_integral() -> None:
    """Compare (e^{ΔA} - 1) / A with ∫_0^Δ e^{sA} ds, by the midpoint rule."""
    rate, frequency = torch.tensor([[0.5, 2.0, 0.1]]).double(), torch.tensor([[0.0, 30.0, -4.0]]).double()
    for step in (1e-6, 0.01, 0.7):
        log_radius, angle, held = zero_order_hold(rate, frequency, torch.tensor([[step]]).double())
        a = torch.complex(-rate, frequency)
        torch.testing.assert_close(torch.complex(log_radius, angle), step * a)
        nodes = (torch.arange(20000).double() + 0.5) * step / 20000
        expected = (nodes[:, None] * a).exp().mean(0) * step
        torch.testing.assert_close(torch.complex(*held.chunk(2, -1))[0], expected, rtol=1e-6, atol=0)
        single = zero_order_hold(rate.float(), frequency.float(), torch.tensor([[step]]))[2]
        torch.testing.assert_close(single.double(), held, rtol=1e-6, atol=1e-7 * step)


def test_strong_decays_and_long_sequences_stay_finite() -> None:
    x, state = torch.randn(1, 5000, 2, requires_grad=True), torch.randn(1, 2, 6)
    log_radius = torch.tensor([[0.0, -1e-4, -1.0], [-30.0, -1e3, -1e30]]).requires_grad_()
    angle, output = (1e3 * torch.rand(2, 3)).requires_grad_(), torch.randn(2, 6)
    y, last = run_at_once(x, log_radius, angle, output, state)
    assert y.isfinite().all()
    assert last.isfinite().all()
    gradients = torch.autograd.grad(y.sum() + last.sum(), [x, log_radius, angle])
    assert all(each.isfinite().all() for each in gradients)


def test_the_bilinear_rule_matches_its_definition() -> None:
    rate, frequency = torch.tensor([[0.5, 2.0, 0.1, 30.0]]).double(), torch.tensor([[0.0, 30.0, -4.0, 1.0]]).double()
    for step in (1e-6, 0.01, 0.7):
        half = step * torch.complex(-rate, frequency) / 2
        log_radius, angle, factor = bilinear(rate, frequency, torch.tensor([[step]]).double())
        torch.testing.assert_close(torch.polar(log_radius.exp(), angle), (1 + half) / (1 - half))
        torch.testing.assert_close(torch.complex(*factor.chunk(2, -1)), step / (1 - half))


def test_the_bilinear_rule_is_exact_in_float32_for_slow_modes_and_finite_where_the_mode_vanishes() -> None:
    rate, frequency = torch.tensor([[1e-4, 0.5]]), torch.tensor([[3.0, 100.0]])
    exact, _, _ = bilinear(rate.double(), frequency.double(), torch.tensor([[1e-3]]).double())
    found, _, _ = bilinear(rate, frequency, torch.tensor([[1e-3]]))
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)
    rate = torch.tensor([[2.0]], requires_grad=True)  # λ = 0 with step 1
    log_radius, _, factor = bilinear(rate, torch.tensor([[1e-3]]), torch.tensor([[1.0]]))
    assert log_radius.exp().item() == pytest.approx(0, abs=1e-3)
    (gradient,) = torch.autograd.grad(log_radius.sum() + factor.sum(), rate)
    assert gradient.isfinite().all()
