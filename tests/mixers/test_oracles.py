"""Mixers against their slow references, in outputs and gradients."""

from typing import Any

import pytest

from hybridlab.mixers.attention.full import Full
from hybridlab.mixers.conv.gated_conv import GatedConv
from hybridlab.mixers.linear.linear import Linear
from hybridlab.mixers.sparse.sliding import Sliding
from hybridlab.mixers.ssm.mamba2 import Mamba2
from tests.mixers import oracles
from tests.mixers.agree import WIDTH, agree


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
        {"head_width": 8, "state": 4, "groups": 2, "conv_size": 1, "chunk": 5},
    ],
    ids=str,
)
def test_mamba2(settings: dict[str, Any], t: int) -> None:
    agree(Mamba2(width=WIDTH, **settings), oracles.mamba2, t)


@pytest.mark.parametrize("t", [1, 3, 40])
@pytest.mark.parametrize("conv_size", [1, 2, 4, 9])
def test_gated_conv(conv_size: int, t: int) -> None:
    agree(GatedConv(width=WIDTH, conv_size=conv_size), oracles.gated_conv, t)
