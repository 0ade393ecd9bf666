"""Kimi Delta Attention: bad values and initialisation."""

import math
import re
from typing import Any

import pytest
import torch

from hybridlab.mixers.linear.kda import KDA


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 5}, "heads=5: must divide the width, 64"),
        ({"heads": 0}, "heads=0: must be a whole number of at least 1"),
        ({"conv_size": 0}, "conv_size=0: must be a whole number of at least 1"),
        ({"decay_gate_rank": 0}, "decay_gate_rank=0: must be a whole number of at least 1, or null: as wide as a head"),
        ({"chunk": 24}, "chunk=24: must be a power of two"),
    ],
    ids=str,
)
def test_bad_values_are_refused_in_words(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        KDA(width=64, **settings)


def test_starts_with_steps_and_rates_in_their_ranges() -> None:
    torch.manual_seed(0)
    mixer = KDA(width=512, heads=256)
    step = torch.nn.functional.softplus(mixer.step_bias.detach())
    rate = mixer.log_rate.detach().exp()
    assert 1e-3 * 0.999 < step.min() < 1.1e-3
    assert 0.09 < step.max() < 1e-1 * 1.001
    assert step.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.15)
    assert 1 <= rate.min() < 1.3
    assert 15.7 < rate.max() <= 16.001


def test_tags_what_takes_no_decay_and_keeps_its_initialisation() -> None:
    tagged = {
        name: (parameter.takes_weight_decay, parameter.takes_initialisation)
        for name, parameter in KDA(width=64).named_parameters()
        if hasattr(parameter, "takes_weight_decay")
    }
    assert tagged == {
        "log_rate": (False, False),
        "step_bias": (False, False),
        "norm": (False, False),
        "convolution.weight": (True, False),
    }
