"""Mixers against their slow references, in outputs and gradients."""

from typing import Any

import pytest

from hybridlab.mixers.linear.linear import Linear
from hybridlab.mixers.ssm.mamba2 import Mamba2
from tests.mixers import oracles
from tests.mixers.agree import WIDTH, agree


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
