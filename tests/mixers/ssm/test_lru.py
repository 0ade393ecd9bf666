"""The LRU: bad values and initialisation."""

import math
import re
from typing import Any

import pytest
import torch

from hybridlab.mixers.ssm.lru import LRU


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"state": 0}, "state=0: must be a whole number of at least 1"),
        ({"r_min": -0.1}, "r_min=-0.1: must be a number of at least 0 and below 1"),
        ({"r_min": 1.0}, "r_min=1.0: must be a number of at least 0 and below 1"),
        ({"r_max": 1.1}, "r_max=1.1: must be a number of at least 0.0 and at most 1"),
        ({"r_min": 0.5, "r_max": 0.4}, "r_max=0.4: must be a number of at least 0.5 and at most 1"),
        ({"max_phase": 0.0}, "max_phase=0.0: must be a number above 0"),
    ],
    ids=str,
)
def test_bad_values_are_refused_in_words(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LRU(width=64, **settings)


@pytest.mark.parametrize(("r_min", "r_max", "max_phase"), [(0.0, 1.0, 6.28), (0.4, 0.8, 0.5)])
def test_eigenvalues_start_uniform_on_the_ring(r_min: float, r_max: float, max_phase: float) -> None:
    torch.manual_seed(0)
    mixer = LRU(width=8, state=20000, r_min=r_min, r_max=r_max, max_phase=max_phase)
    radius = (-mixer.log_rate.detach().double().exp()).exp()
    angle = mixer.log_angle(torch.float64).detach().exp()
    assert r_min - 1e-6 <= radius.min() < r_min + 0.02
    assert r_max - 0.02 < radius.max() <= r_max + 1e-6
    # Uniform in area: a quarter of the ring's area holds a quarter of the draws.
    inner = math.sqrt(r_min**2 + (r_max**2 - r_min**2) / 4)
    assert (radius < inner).double().mean().item() == pytest.approx(0.25, abs=0.015)
    assert (angle < max_phase / 4).double().mean().item() == pytest.approx(0.25, abs=0.015)
    assert angle.min() > 0
    assert angle.max() <= max_phase * (1 + 1e-6)
    torch.testing.assert_close(
        mixer.log_gain.detach().double().exp(), (1 - radius.square()).sqrt(), rtol=1e-2, atol=1e-3
    )


def test_states_start_with_the_size_of_white_inputs() -> None:
    """γ keeps E|h|² at that of B x for any |λ|: 1 for inputs of variance 1, half in each part."""
    torch.manual_seed(0)
    mixer, x = LRU(width=32, state=256, r_min=0.5, r_max=0.99), torch.randn(64, 400, 32)
    _, state = mixer.extend(x, mixer.initial_state(64, x))
    assert state.state.detach().square().sum(-1).mean().item() == pytest.approx(1.0, rel=0.1)
    assert LRU(width=32, state=400).readout.weight.std().item() == pytest.approx(400**-0.5, rel=0.05)


def test_tags_say_what_takes_no_decay_and_keeps_its_initialisation() -> None:
    tagged = {
        name: (parameter.takes_weight_decay, parameter.takes_initialisation)
        for name, parameter in LRU(width=64).named_parameters()
        if hasattr(parameter, "takes_weight_decay")
    }
    assert tagged == {
        "log_rate": (False, False),
        "log_angle.offset": (False, False),
        "log_gain": (False, False),
        "drive.weight": (False, False),
        "readout.weight": (True, False),
        "skip": (False, False),
    }
