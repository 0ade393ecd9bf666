"""Rotary positions."""

import torch

from hybridlab.ops.attention.rotary import rotary_turns, rotate


def turned(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return rotate(x, rotary_turns(positions, x, 10000.0))


def test_scores_depend_only_on_the_difference_of_positions() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 3, 7, 8, dtype=torch.float64)
    near, far = torch.arange(7), torch.arange(7) + 1000
    torch.testing.assert_close(
        turned(q, far) @ turned(k, far).mT, turned(q, near) @ turned(k, near).mT, rtol=1e-9, atol=1e-9
    )
    assert not torch.allclose(turned(q, far) @ turned(k, near).mT, turned(q, near) @ turned(k, near).mT)


def test_position_zero_and_norms_are_unchanged() -> None:
    x = torch.randn(2, 3, 5, 8)
    y = turned(x, torch.arange(5))
    assert torch.equal(y[:, :, 0], x[:, :, 0])
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))


def test_each_sequence_can_have_its_own_positions() -> None:
    x = torch.randn(2, 3, 4, 8)
    positions = torch.tensor([[0], [9]]) + torch.arange(4)
    torch.testing.assert_close(turned(x, positions)[1:], turned(x[1:], positions[1]))


def test_angles_are_not_rounded_with_the_input() -> None:
    x = torch.randn(1, 1, 2, 8, dtype=torch.bfloat16)
    positions = torch.tensor([4097, 4099])  # both are 4096 in bfloat16
    y = turned(x, positions)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), turned(x.float(), positions), rtol=1e-2, atol=1e-2)


def test_the_operator_passes_opcheck() -> None:
    for positions in (torch.arange(7), torch.arange(14).view(7, 2).T, torch.arange(14).view(2, 7)[:, :0]):
        torch.library.opcheck(torch.ops.hybridlab.rotary_turns.default, (positions, 8, 10000.0, torch.float32))
