"""Each mixer against its slow and obvious form, in outputs and gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.full import Full
from hybridlab.mixers.gated_conv import GatedConv
from hybridlab.mixers.linear import Linear
from hybridlab.mixers.mamba2 import Mamba2
from hybridlab.mixers.sliding import Sliding
from tests.mixers import oracles

WIDTH = 32


@pytest.mark.parametrize("t", [1, 9, 130])
@pytest.mark.parametrize(
    "settings", [{}, {"heads": 1}, {"kv_heads": 2}, {"kv_heads": 1}, {"rope": None}, {"rope": 100.0}], ids=str
)
def test_full(settings: dict[str, Any], t: int) -> None:
    agree(Full(width=WIDTH, **settings), oracles.attention, t)


@pytest.mark.parametrize("t", [1, 9, 64, 65, 200])
@pytest.mark.parametrize(
    "settings",
    [{"window": 1}, {"window": 5}, {"window": 64, "kv_heads": 2}, {"window": 70}, {"window": 300, "rope": None}],
    ids=str,
)
def test_sliding(settings: dict[str, Any], t: int) -> None:
    agree(Sliding(width=WIDTH, **settings), lambda mixer, x: oracles.attention(mixer, x, settings["window"]), t)


@pytest.mark.parametrize("t", [1, 9, 150])
@pytest.mark.parametrize("settings", [{}, {"heads": 8}, {"chunk": 7}, {"chunk": 1}], ids=str)
def test_linear(settings: dict[str, Any], t: int) -> None:
    agree(Linear(width=WIDTH, **settings), oracles.linear, t)


@pytest.mark.parametrize("t", [1, 9, 70])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"head_width": 16, "state": 8, "chunk": 16},
        {"head_width": 8, "state": 4, "groups": 2, "conv": 1, "chunk": 5},
    ],
    ids=str,
)
def test_mamba2(settings: dict[str, Any], t: int) -> None:
    agree(Mamba2(width=WIDTH, **settings), oracles.mamba2, t)


@pytest.mark.parametrize("t", [1, 3, 40])
@pytest.mark.parametrize("kernel", [1, 2, 4, 9])
def test_gated_conv(kernel: int, t: int) -> None:
    agree(GatedConv(width=WIDTH, kernel=kernel), oracles.gated_conv, t)


def agree(mixer: Mixer, oracle: Callable[[Any, Tensor], Tensor], t: int) -> None:
    torch.manual_seed(t)
    mixer = mixer.double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(2, t, WIDTH, dtype=torch.float64, requires_grad=True)
    sought = [x, *mixer.parameters()]
    y, expected = mixer(x), oracle(mixer, x)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    weights = torch.randn_like(y)
    # One token alone leaves decays and positions without effect: the oracle's graph may not contain them at all.
    found, wanted = (
        torch.autograd.grad((each * weights).sum(), sought, materialize_grads=True) for each in (y, expected)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)
