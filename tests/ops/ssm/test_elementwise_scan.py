"""The elementwise scan in chunks against the loop and the reference of flash-linear-attention."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hybridlab.ops.ssm.elementwise_scan import MAX_SEQUENTIAL_STEPS, elementwise_scan, recurrent_elementwise_scan
from tests.ops.test_references import reference, same


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    t=st.one_of(
        st.integers(1, 40),
        st.sampled_from([MAX_SEQUENTIAL_STEPS**2 - 1, MAX_SEQUENTIAL_STEPS**2 + 1, 255, 256, 257, 600]),
    ),
    strength=st.sampled_from([0.0, 0.01, 1.0, 100.0]),
    continued=st.booleans(),
)
def test_chunks_match_the_loop(t: int, strength: float, continued: bool) -> None:
    inputs = draw(t, strength, continued)
    found, expected = elementwise_scan(*inputs), recurrent_elementwise_scan(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    grad_outputs = [torch.randn_like(each) for each in expected]
    # A single step from a zero state does not depend on its decay.
    gradients = (torch.autograd.grad(each, inputs, grad_outputs, materialize_grads=True) for each in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("t", [5, 90])
def test_operator_passes_the_checks_of_pytorch(t: int) -> None:
    inputs = draw(t, 1.0, True)
    torch.library.opcheck(torch.ops.hybridlab.elementwise_scan.default, tuple(inputs))
    assert torch.autograd.gradcheck(elementwise_scan, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(elementwise_scan, inputs, fast_mode=True)


@pytest.mark.parametrize("log_decay", [0.0, -1e-9, -30.0, -1e4])
def test_extreme_decays_stay_finite(log_decay: float) -> None:
    x = torch.randn(1, 20_000, 3, requires_grad=True)
    decays = torch.full_like(x, log_decay).requires_grad_()
    states, last = elementwise_scan(x, decays)
    assert torch.equal(states[:, -1], last)
    gradients = torch.autograd.grad(states.square().mean(), [x, decays])
    assert all(each.isfinite().all() for each in (states, *gradients))


def test_states_are_summed_in_float32() -> None:
    x, log_decay = torch.ones(1, 1000, 1, dtype=torch.bfloat16), torch.full((1, 1000, 1), -1e-4)
    states, last = elementwise_scan(x, log_decay)
    assert (states.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    exact = recurrent_elementwise_scan(x.double(), log_decay.double())[1]
    torch.testing.assert_close(last.double(), exact, rtol=1e-5, atol=0)


def test_autocast_changes_nothing() -> None:
    inputs = [each.float() for each in draw(90, 1.0, True)]
    expected = elementwise_scan(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = elementwise_scan(*inputs)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("continued", [False, True])
def test_hgrn_matches_flash_linear_attention(continued: bool) -> None:
    inputs = [each.detach().float().requires_grad_() for each in draw(150, 1.0, continued)]
    expected, last = reference("hgrn/naive.py").naive_recurrent_hgrn(*inputs, output_final_state=True)
    found, ours = elementwise_scan(*inputs)
    torch.testing.assert_close(ours, last, rtol=1e-5, atol=1e-5)
    same(found, expected, *inputs)


def draw(t: int, strength: float, continued: bool) -> list[Tensor]:
    """Return x, log_decay and, if `continued`, the initial state."""
    torch.manual_seed(t)
    x = torch.randn(2, t, 5, dtype=torch.float64, requires_grad=True)
    log_decay = (-strength * torch.rand(2, t, 5, dtype=torch.float64)).requires_grad_()
    return [x, log_decay, *([torch.randn(2, 5, dtype=torch.float64, requires_grad=True)] if continued else [])]
