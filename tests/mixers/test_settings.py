"""Settings and initialisation of the mixers that come with hybridlab."""

import inspect
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class

from hybridlab.mixers.attention.full import Full
from hybridlab.mixers.base import Mixer
from hybridlab.mixers.conv.gated_conv import GatedConv
from hybridlab.mixers.linear.linear import Linear
from hybridlab.mixers.sparse.sliding import Sliding
from hybridlab.mixers.ssm.mamba2 import Mamba2
from hybridlab.renamed import SETTINGS
from tests.mixers.subject import CONF, FROM_THE_STACK, Subject


@pytest.mark.parametrize(
    ("cls", "width", "settings", "message"),
    [
        (Full, 64, {"heads": 5}, "heads=5: must divide the width, 64"),
        (Full, 64, {"kv_heads": 0}, "kv_heads=0: must be a whole number of at least 1"),
        (Full, 64, {"kv_heads": 3}, "kv_heads=3: must divide heads, 4"),
        (Full, 64, {"rope": -1.0}, "rope=-1.0: must be a number above 0, or null: no positions"),
        (Full, 12, {}, "rope=10000.0: needs an even head width, not 3, or null: no positions"),
        (Sliding, 64, {"window": 0}, "window=0: must be a whole number of at least 1"),
        (Linear, 64, {"chunk": 0}, "chunk=0: must be a whole number of at least 1, or null: the fastest on the device"),
        (Linear, 64, {"heads": 128}, "heads=128: must divide the width, 64"),
        (Mamba2, 128, {"head_width": 48}, "head_width=48: must divide the expanded width, 256"),
        (Mamba2, 128, {"groups": 3}, "groups=3: must divide the number of heads, 4"),
        (GatedConv, 64, {"conv_size": -4}, "conv_size=-4: must be a whole number of at least 1"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_values_are_refused_in_words(cls: type[Mixer], width: int, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cls(width=width, **settings)


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_yaml_lists_every_hyper_parameter_with_its_default(file: Path) -> None:
    subject = Subject(file, True)
    declared = {k: p.default for k, p in subject.signature.items() if k not in FROM_THE_STACK}
    assert subject.own_settings == declared


@pytest.mark.parametrize("target", [target for target in SETTINGS if target.startswith("hybridlab.mixers.")])
def test_renamed_settings_exist_under_their_new_names_only(target: str) -> None:
    accepted = set(inspect.signature(get_class(target)).parameters)
    assert set(SETTINGS[target].values()) <= accepted
    assert not set(SETTINGS[target]) & accepted


def test_mamba2_starts_with_steps_and_rates_in_their_ranges() -> None:
    torch.manual_seed(0)
    mixer = Mamba2(width=512, head_width=1)
    step = torch.nn.functional.softplus(mixer.step_bias.detach())
    rate = mixer.log_rate.detach().exp()
    assert 1e-3 * 0.999 < step.min() < 1.1e-3
    assert 0.09 < step.max() < 1e-1 * 1.001
    assert step.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.15)
    assert 1 <= rate.min() < 1.2
    assert 15.8 < rate.max() <= 16.001


def test_mamba2_tags_what_takes_no_decay_and_keeps_its_initialisation() -> None:
    tagged = {
        name: (parameter.takes_weight_decay, parameter.takes_initialisation)
        for name, parameter in Mamba2(width=64).named_parameters()
        if hasattr(parameter, "takes_weight_decay")
    }
    assert tagged == {
        "log_rate": (False, False),
        "step_bias": (False, False),
        "skip": (False, False),
        "norm": (False, False),
        "convolution.weight": (True, False),
        "convolution.bias": (False, False),
    }
