"""Parameters that survive a conversion to bfloat16."""

import copy

import torch

from hybridlab.mixers.parts.anchored import Anchored


def test_it_starts_at_its_value_and_adds_what_is_learned() -> None:
    value = 100 * torch.randn(50)
    number = Anchored(value)
    torch.testing.assert_close(number(torch.float32), value, rtol=1e-7, atol=0)
    with torch.no_grad():
        number.offset += 0.25
    torch.testing.assert_close(number(torch.float32), value + 0.25)
    assert set(number.state_dict()) == {"anchor", "offset"}
    assert not number.offset.takes_weight_decay  # type: ignore[attr-defined]


def test_bfloat16_keeps_twice_as_many_digits() -> None:
    value = 100 * torch.randn(1000)
    rounded = copy.deepcopy(Anchored(value)).to(torch.bfloat16)
    assert rounded.offset.dtype == torch.bfloat16
    error = (rounded(torch.float32) - value).abs() / value.abs()
    assert error.max() < 2.0**-16
    assert ((value.bfloat16().float() - value).abs() / value.abs()).max() > 2.0**-10
