"""Kernel, readout and state of a DPLR model against loops, dense matrices and S4's algorithm."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hybridlab.ops.conv.fft_conv import fft_conv
from hybridlab.ops.ssm.dplr_ssm import advance_state, bilinear_dplr, recurrent_ssm, repeated_squares, responses
from hybridlab.ops.ssm.hippo import legs, legs_diagonal_plus_low_rank


def draw_inputs(channels: int, pairs: int) -> tuple[Tensor, ...]:
    """Draw rates, frequencies, P, B and a step."""
    rate, frequency = torch.rand(channels, pairs), 5 * torch.randn(channels, pairs)
    low_rank, drive = torch.randn(2, channels, 2 * pairs)
    step = torch.rand(channels, 1)
    return tuple(each.double().requires_grad_() for each in (rate + 0.01, frequency, low_rank, drive, step))


def with_conjugates(halves: Tensor) -> Tensor:
    """Return the complex vector of these real and imaginary parts, followed by its conjugate."""
    half = torch.complex(*halves.chunk(2, -1))
    return torch.cat([half, half.conj()], dim=-1)


def run_at_once(x: Tensor, transition: Tensor, drive: Tensor, readout: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    t = x.shape[1]
    powers = repeated_squares(transition, t)
    starts = torch.cat([drive[..., None], transition @ state.permute(1, 2, 0)], dim=-1)
    found = responses(powers, starts, readout[:, None], t)[:, 0]
    return fft_conv(x, found[:, 0]) + found[:, 1:].permute(1, 2, 0), advance_state(x, powers, drive, state)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(t=st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 100])), pairs=st.sampled_from([1, 2, 5]))
def test_kernel_readout_and_state_match_the_recurrence(t: int, pairs: int) -> None:
    torch.manual_seed(t)
    inputs = draw_inputs(3, pairs)
    x, state = torch.randn(2, t, 3).double().requires_grad_(), torch.randn(2, 3, 2 * pairs).double().requires_grad_()
    readout = torch.randn(3, 2 * pairs).double().requires_grad_()
    transition, drive = bilinear_dplr(*inputs)
    found = run_at_once(x, transition, drive, readout, state)
    expected = recurrent_ssm(x, transition, drive, readout, state)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    variables, grad_outputs = [x, state, readout, *inputs], [torch.randn_like(each) for each in expected]
    torch.testing.assert_close(
        *(torch.autograd.grad(pair, variables, grad_outputs, retain_graph=True) for pair in (found, expected)),
        rtol=1e-7,
        atol=1e-7,
    )


@pytest.mark.parametrize("pairs", [1, 2, 7])
def test_real_matrices_match_the_dense_complex_ones(pairs: int) -> None:
    torch.manual_seed(0)
    inputs = draw_inputs(4, pairs)
    rate, frequency, low_rank, drive, step = inputs
    p, b = with_conjugates(low_rank), with_conjugates(drive)
    a = (
        torch.diag_embed(with_conjugates(torch.cat([-rate, frequency], dim=-1)))
        - p[..., :, None] * p.conj()[..., None, :]
    )
    identity, half = torch.eye(2 * pairs).to(a.dtype), step[..., None] / 2
    dense = torch.linalg.solve(identity - half * a, identity + half * a)
    input_vector = torch.linalg.solve(identity - half * a, (step * b)[..., None])
    transition, real_drive = bilinear_dplr(*inputs)
    state = torch.randn(4, 2 * pairs).double()
    after = transition @ state[..., None] + real_drive[..., None]
    expected = dense @ with_conjugates(state)[..., None] + input_vector
    torch.testing.assert_close(with_conjugates(after.squeeze(-1)), expected.squeeze(-1), rtol=1e-10, atol=1e-10)


def test_hippo_in_dplr_form_has_the_kernel_of_the_dense_matrix() -> None:
    """With C = B, the kernel is that of HiPPO's real matrices, because no basis changes it."""
    n, length, steps = 16, 120, torch.tensor([0.001, 0.01, 0.1, 1.0], dtype=torch.float64)
    frequency, low_rank, drive = legs_diagonal_plus_low_rank(n)
    p, b = (torch.cat([each.real, each.imag]).expand(4, n) for each in (low_rank, drive))
    rate = torch.full((4, n // 2), 0.5, dtype=torch.float64)
    transition, real_drive = bilinear_dplr(rate, frequency.expand(4, -1), p, b, steps[:, None])
    found = responses(repeated_squares(transition, length), real_drive[..., None], 2 * b[:, None], length)[:, 0, 0]
    matrix, dense_drive = legs(n)
    identity = torch.eye(n, dtype=torch.float64)
    for kernel, step in zip(found, steps, strict=True):
        advance = torch.linalg.solve(identity - step / 2 * matrix, identity + step / 2 * matrix)
        h, expected = torch.linalg.solve(identity - step / 2 * matrix, step * dense_drive), []
        for _ in range(length):
            expected.append(dense_drive @ h)
            h = advance @ h
        torch.testing.assert_close(kernel, torch.stack(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("length", [1, 7, 65, 129])
def test_kernel_matches_the_generating_function(length: int) -> None:
    """Compare with S4's algorithm: Cauchy products at roots of unity, Woodbury, an inverse FFT.

    Lengths are odd, because its formula divides by zero at z = -1.
    """
    torch.manual_seed(0)
    inputs = [each.detach() for each in draw_inputs(3, 4)]
    readout = torch.randn(3, 8).double()
    rate, frequency, low_rank, drive, step = inputs
    eigenvalues = with_conjugates(torch.cat([-rate, frequency], dim=-1))[:, None]  # d 1 n
    p, b, c = with_conjugates(low_rank), with_conjugates(drive), with_conjugates(readout)
    transition, real_drive = bilinear_dplr(*inputs)
    real, imaginary = readout.chunk(2, -1)
    found = responses(
        repeated_squares(transition, length),
        real_drive[..., None],
        2 * torch.cat([real, -imaginary], dim=-1)[:, None],
        length,
    )[:, 0, 0]

    a = torch.diag_embed(eigenvalues[:, 0]) - p[..., :, None] * p.conj()[..., None, :]
    identity, half = torch.eye(8).to(a.dtype), step[..., None] / 2
    dense = torch.linalg.solve(identity - half * a, identity + half * a)
    truncated = (c[:, None] @ (identity - torch.linalg.matrix_power(dense, length))).squeeze(1)
    z = torch.exp(-2j * torch.pi * torch.arange(length).double() / length)
    resolvent = 1 / ((2 / step * (1 - z) / (1 + z))[..., None] - eigenvalues)  # d z n

    def cauchy(left: Tensor, right: Tensor) -> Tensor:
        return (resolvent * (left * right)[:, None]).sum(-1)

    correction = cauchy(truncated, p) * cauchy(p.conj(), b) / (1 + cauchy(p.conj(), p))
    spectrum = 2 / (1 + z) * (cauchy(truncated, b) - correction)
    torch.testing.assert_close(found, torch.fft.ifft(spectrum).real, rtol=1e-8, atol=1e-8)


def test_kernels_of_all_lengths_share_their_beginning() -> None:
    torch.manual_seed(0)
    transition, drive = bilinear_dplr(*draw_inputs(2, 3))
    readouts = torch.randn(2, 2, 6).double()
    longest = responses(repeated_squares(transition, 200), drive[..., None], readouts, 200)
    for length in (1, 2, 3, 4, 5, 63, 64, 65, 199):
        found = responses(repeated_squares(transition, length), drive[..., None], readouts, length)
        torch.testing.assert_close(found, longest[..., :length], rtol=1e-11, atol=1e-11)


def test_extreme_models_do_not_grow_over_long_sequences() -> None:
    torch.manual_seed(0)
    rate = torch.tensor([[1e-8, 1e-3], [1.0, 1e6], [1e-8, 1e30]])
    frequency = torch.tensor([[1e-6, 1e4], [0.0, 1e8], [1.0, 2.0]])
    low_rank, drive = 100 * torch.randn(3, 4), torch.randn(3, 4)
    step = torch.tensor([[1e-3], [1.0], [1e3]])
    variables = [each.requires_grad_() for each in (rate, frequency, low_rank, drive, step)]
    transition, real_drive = bilinear_dplr(*variables)
    assert torch.linalg.matrix_norm(transition, 2).max() <= 1 + 1e-5
    x, readout, state = torch.randn(1, 5000, 3), torch.randn(3, 4), torch.randn(1, 3, 4)
    y, last = run_at_once(x, transition, real_drive, readout, state)
    assert y.isfinite().all()
    assert last.isfinite().all()
    gradients = torch.autograd.grad(y.mean() + last.sum(), variables)
    assert all(each.isfinite().all() for each in gradients)
