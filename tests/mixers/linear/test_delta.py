"""The delta rule's mixers: bad values and initialisation."""

import math
import re
from typing import Any

import pytest
import torch
from torch import nn

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.linear.delta import Delta
from hybridlab.mixers.linear.gated_delta import GatedDelta


@pytest.mark.parametrize("cls", [Delta, GatedDelta])
@pytest.mark.parametrize("width", [64, 256, 1024])
def test_defaults_serve_stacks_of_any_usual_width(cls: type[Mixer], width: int) -> None:
    with torch.device("meta"):
        assert cls(width=width)(torch.empty(1, 100, width)).shape == (1, 100, width)


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (Delta, {"heads": 5}, "heads=5: must divide the width, 64"),
        (Delta, {"heads": 0}, "heads=0: must be a whole number of at least 1"),
        (Delta, {"conv_size": 0}, "conv_size=0: must be a whole number of at least 1"),
        (GatedDelta, {"heads": 5}, "heads=5: must divide the width, 64, times expand_k, 0.75"),
        (GatedDelta, {"heads": 0}, "heads=0: must be a whole number of at least 1"),
        (GatedDelta, {"expand_k": 0.7}, "heads=4: must divide the width, 64, times expand_k, 0.7"),
        (GatedDelta, {"expand_k": 0.0}, "expand_k=0.0: must be a number above 0"),
        (GatedDelta, {"expand_k": -0.75}, "expand_k=-0.75: must be a number above 0"),
        (GatedDelta, {"expand_k": math.nan}, "expand_k=nan: must be a number above 0"),
        (GatedDelta, {"value_ratio": 0}, "value_ratio=0: must be a whole number of at least 1"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_values_are_refused_in_words(cls: type[Mixer], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cls(width=64, **settings)


def test_gated_delta_starts_with_steps_and_rates_in_their_ranges() -> None:
    torch.manual_seed(0)
    mixer = GatedDelta(width=1024, heads=256)
    step = nn.functional.softplus(mixer.step_bias.detach())
    rate = mixer.log_rate.detach().exp()
    assert 1e-3 * 0.999 < step.min() < 1.1e-3
    assert 0.09 < step.max() < 1e-1 * 1.001
    assert step.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.2)
    assert 1e-3 * 0.999 < rate.min() < 0.2
    assert 15.8 < rate.max() <= 16.001
    assert rate.mean().item() == pytest.approx(8, abs=1)


@pytest.mark.parametrize(
    ("cls", "gates"), [(Delta, {}), (GatedDelta, {"log_rate": (False, False), "step_bias": (False, False)})]
)
def test_what_takes_no_decay_or_keeps_its_initialisation_is_tagged(
    cls: type[Mixer], gates: dict[str, tuple[bool, bool]]
) -> None:
    tagged = {
        name: (parameter.takes_weight_decay, parameter.takes_initialisation)
        for name, parameter in cls(width=64).named_parameters()
        if hasattr(parameter, "takes_weight_decay")
    }
    assert tagged == {"convolution.weight": (True, False), "norm": (False, False), **gates}
