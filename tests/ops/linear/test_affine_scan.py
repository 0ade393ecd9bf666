"""The scan of affine maps in blocks against the steps one by one."""

import pytest
import torch

from hybridlab.ops.linear.affine_scan import affine_scan, recurrent_affine_scan


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 72, 100, 512, 521])
@pytest.mark.parametrize("continued", [False, True], ids=["from zero", "from a state"])
def test_blocks_give_what_the_steps_give(n: int, continued: bool) -> None:
    torch.manual_seed(n)
    transition = (torch.eye(4) + 0.3 * torch.randn(2, 3, n, 4, 4)).div(1.3).double().requires_grad_()
    added = torch.randn(2, 3, n, 4, 5, dtype=torch.float64, requires_grad=True)
    start = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True) if continued else None
    found, expected = (scan(transition, added, start) for scan in (affine_scan, recurrent_affine_scan))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    into = [torch.randn_like(part) for part in expected]
    sought = [x for x in (transition, added, start) if x is not None]
    gradients, wanted = (
        torch.autograd.grad(sum((part * weight).sum() for part, weight in zip(each, into, strict=True)), sought)
        for each in (found, expected)
    )
    torch.testing.assert_close(gradients, wanted, rtol=1e-8, atol=1e-8)


def test_the_states_are_those_before_each_step() -> None:
    transition, added = 2 * torch.ones(1, 20, 1, 1), torch.ones(1, 20, 1, 1)
    states, last = affine_scan(transition, added, 3 * torch.ones(1, 1, 1))
    assert states.flatten().tolist() == [4 * 2**i - 1 for i in range(20)]
    assert last.item() == 4 * 2**20 - 1


def test_reflections_neither_grow_nor_fade_in_float32() -> None:
    torch.manual_seed(0)
    keys = torch.nn.functional.normalize(torch.randn(1, 4096, 16, 1), dim=-2)
    start = torch.randn(1, 16, 16)
    _, last = affine_scan(torch.eye(16) - 2 * keys @ keys.mT, torch.zeros(1, 4096, 16, 16), start)
    torch.testing.assert_close(last.norm(), start.norm(), rtol=1e-4, atol=0)


def test_maps_that_forget_all_keep_everything_finite() -> None:
    transition = torch.zeros(2, 100, 3, 3, requires_grad=True)
    added = torch.randn(2, 100, 3, 3, requires_grad=True)
    states, last = affine_scan(transition, added)
    torch.testing.assert_close(states[:, 1:], added[:, :-1])
    torch.testing.assert_close(last, added[:, -1])
    gradients = torch.autograd.grad(states.sum() + last.sum(), [transition, added])
    assert all(each.isfinite().all() for each in gradients)
