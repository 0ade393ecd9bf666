"""The selective scan in chunks against the loop and the reference of transformers."""

from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hybridlab.ops.ssm.selective_scan import BLOCK, CHUNK, recurrent_selective_scan, selective_scan
from tests.ops.kept import saved_elements

D, N = 5, 3


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    t=st.one_of(
        st.integers(1, 2 * BLOCK + 1), st.sampled_from([CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 5 * CHUNK + 7, 1000])
    ),
    strength=st.sampled_from([0.0, 0.01, 1.0, 100.0]),
    continued=st.booleans(),
)
def test_chunks_match_the_loop(t: int, strength: float, continued: bool) -> None:
    inputs = draw(t, strength, continued)
    found, expected = selective_scan(*inputs), recurrent_selective_scan(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    grad_outputs = [torch.randn_like(each) for each in expected]
    gradients = (torch.autograd.grad(each, inputs, grad_outputs) for each in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("t", [1, CHUNK + 5])
def test_operators_pass_the_checks_of_pytorch(t: int) -> None:
    inputs = draw(t, 1.0, True)
    torch.library.opcheck(torch.ops.hybridlab.selective_scan.default, tuple(inputs))
    plain = [each.detach() for each in inputs]
    y, last, checkpoints = torch.ops.hybridlab.selective_scan(*plain)
    grad_outputs = torch.randn_like(y), torch.randn_like(last)
    torch.library.opcheck(
        torch.ops.hybridlab.selective_scan_gradients.default, (*plain[:5], checkpoints, *grad_outputs)
    )
    assert torch.autograd.gradcheck(selective_scan, inputs, fast_mode=True)


@pytest.mark.parametrize("read", ["outputs", "state"])
def test_either_result_can_be_unused(read: str) -> None:
    inputs = draw(CHUNK + 5, 1.0, True)
    pick = ["outputs", "state"].index(read)
    found, expected = (
        torch.autograd.grad(scan(*inputs)[pick].square().sum(), inputs, materialize_grads=True)
        for scan in (selective_scan, recurrent_selective_scan)
    )
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("rate", [0.0, -1e-9, -30.0, -1e4])
def test_extreme_decays_stay_finite(rate: float) -> None:
    inputs = [each.detach().float() for each in draw(9000, 1.0, False)]
    inputs[2].fill_(rate)
    inputs = [each.requires_grad_() for each in inputs]
    y, last = selective_scan(*inputs)
    gradients = torch.autograd.grad(y.square().mean() + last.square().mean(), inputs)
    assert all(each.isfinite().all() for each in (y, last, *gradients))


def test_saved_tensors_are_a_fraction_of_the_states() -> None:
    t, d, n = 4 * CHUNK, 64, 16
    u, step = torch.randn(1, t, d, requires_grad=True), torch.rand(1, t, d)
    rate, key, query = -torch.rand(n, d), torch.randn(1, t, n), torch.randn(1, t, n)
    inputs = sum(each.numel() for each in (u, step, rate, key, query))
    assert saved_elements(lambda: selective_scan(u, step, rate, key, query)) == inputs + t * n * d // BLOCK


def test_mixed_inputs_and_autocast() -> None:
    u, step, rate, key, query, initial_state = (each.float() for each in draw(90, 1.0, True))
    halves = [u.bfloat16(), step, rate, key.bfloat16(), query.bfloat16(), initial_state]
    y, last = expected = selective_scan(*halves)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    exact, _ = selective_scan(*(each.double() for each in halves))
    torch.testing.assert_close(y.double(), exact, rtol=1e-2, atol=1e-2)
    with torch.autocast("cpu", torch.bfloat16):
        found = selective_scan(*halves)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_flops_are_counted(device: str) -> None:
    inputs = (each.to(device) for each in draw(40, 1.0, True))
    with FlopCounterMode(display=False) as counter:
        selective_scan(*inputs)
    assert counter.get_total_flops() == 2 * 2 * 40 * N * D


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers comes with hybridlab[test]")
def test_selective_scan_matches_transformers() -> None:
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan

    u, step, rate, key, query = (each.detach().float().requires_grad_() for each in draw(150, 1.0, False))
    expected, last = mamba_selective_scan(u.mT, step.mT, rate.mT, key.mT, query.mT, return_last_state=True)
    y, ours = selective_scan(u * step, step, rate, key, query)
    torch.testing.assert_close(ours, last.mT, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(y, expected.mT, rtol=1e-5, atol=1e-5)
    grad_outputs, inputs = torch.randn_like(y), (u, step, rate, key, query)
    found, expected = (
        torch.autograd.grad(y, inputs, grad_outputs),
        torch.autograd.grad(expected.mT, inputs, grad_outputs),
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def draw(t: int, strength: float, continued: bool) -> list[Tensor]:
    """Return u, step, rate, key, query and, if `continued`, the initial state."""
    torch.manual_seed(t)
    u, key, query = (torch.randn(2, t, each, dtype=torch.float64, requires_grad=True) for each in (D, N, N))
    step = torch.rand(2, t, D, dtype=torch.float64).requires_grad_()
    rate = (-strength * torch.rand(N, D, dtype=torch.float64)).requires_grad_()
    initial_state = [torch.randn(2, N, D, dtype=torch.float64, requires_grad=True)] if continued else []
    return [u, step, rate, key, query, *initial_state]
