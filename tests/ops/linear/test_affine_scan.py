"""The scan of affine maps in blocks against single steps."""

import pytest
import torch

from hybridlab.ops.linear.affine_scan import affine_scan, recurrent_affine_scan


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 72, 100, 512, 521])
@pytest.mark.parametrize("continued", [False, True], ids=["from zero", "from a state"])
def test_blocks_match_single_steps(n: int, continued: bool) -> None:
    torch.manual_seed(n)
    transition = (torch.eye(4) + 0.3 * torch.randn(2, 3, n, 4, 4)).div(1.3).double().requires_grad_()
    increment = torch.randn(2, 3, n, 4, 5, dtype=torch.float64, requires_grad=True)
    initial_state = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True) if continued else None
    found, expected = (scan(transition, increment, initial_state) for scan in (affine_scan, recurrent_affine_scan))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    grad_outputs = [torch.randn_like(tensor) for tensor in expected]
    variables = [x for x in (transition, increment, initial_state) if x is not None]
    gradients, expected_gradients = (
        torch.autograd.grad(
            sum((tensor * weight).sum() for tensor, weight in zip(result, grad_outputs, strict=True)), variables
        )
        for result in (found, expected)
    )
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-8, atol=1e-8)


def test_the_states_are_those_before_each_step() -> None:
    transition, increment = 2 * torch.ones(1, 20, 1, 1), torch.ones(1, 20, 1, 1)
    states, last = affine_scan(transition, increment, 3 * torch.ones(1, 1, 1))
    assert states.flatten().tolist() == [4 * 2**i - 1 for i in range(20)]
    assert last.item() == 4 * 2**20 - 1


def test_reflections_neither_grow_nor_fade_in_float32() -> None:
    torch.manual_seed(0)
    keys = torch.nn.functional.normalize(torch.randn(1, 4096, 16, 1), dim=-2)
    initial_state = torch.randn(1, 16, 16)
    _, last = affine_scan(torch.eye(16) - 2 * keys @ keys.mT, torch.zeros(1, 4096, 16, 16), initial_state)
    torch.testing.assert_close(last.norm(), initial_state.norm(), rtol=1e-4, atol=0)


def test_zero_transitions_keep_everything_finite() -> None:
    transition = torch.zeros(2, 100, 3, 3, requires_grad=True)
    increment = torch.randn(2, 100, 3, 3, requires_grad=True)
    states, last = affine_scan(transition, increment)
    torch.testing.assert_close(states[:, 1:], increment[:, :-1])
    torch.testing.assert_close(last, increment[:, -1])
    gradients = torch.autograd.grad(states.sum() + last.sum(), [transition, increment])
    assert all(result.isfinite().all() for result in gradients)
