"""Which parameters learn at a rate of their own, and that null gives them the common rate."""

import re
from typing import Any

import pytest

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.conv.h3 import H3
from hybridlab.mixers.conv.hyena import Hyena
from hybridlab.mixers.conv.long_conv import LongConv
from hybridlab.mixers.ssm.lru import LRU
from hybridlab.mixers.ssm.s4 import S4
from hybridlab.mixers.ssm.s4d import S4D
from hybridlab.training.optimiser import AdamWCosine, parameter_groups

MODES = {"log_step.offset", "log_rate", "frequency.offset"}
LAYERS = {f"filter.{name}.{part}" for name in ("layers.0", "layers.1", "layers.2") for part in ("weight", "bias")}
FILTER = LAYERS | {"filter.last.weight", "filter.frequency"}
RECURRENT = {"log_rate", "log_angle.offset", "log_gain", "drive.weight"}
OWN: list[tuple[type[Mixer], str, set[str]]] = [
    (S4, "ssm_lr", MODES | {"low_rank.offset", "drive"}),
    (S4D, "ssm_lr", MODES),
    (H3, "ssm_lr", MODES),
    (Hyena, "filter_lr", FILTER),
    (LongConv, "filter_lr", {"filter"}),
]


def rates(mixer: Mixer, lr: float) -> dict[str, tuple[float, float]]:
    """Return the learning rate and the weight decay of each parameter."""
    names = {id(parameter): name for name, parameter in mixer.named_parameters()}
    groups = parameter_groups(mixer, 0.1, lr)
    return {
        names[id(each)]: (group.get("lr", lr), group["weight_decay"]) for group in groups for each in group["params"]
    }


@pytest.mark.parametrize(("cls", "setting", "own"), OWN)
def test_caps_hold_above_and_follow_the_common_rate_below(cls: type[Mixer], setting: str, own: set[str]) -> None:
    high = rates(cls(width=16), 3e-3)
    assert {name for name, (lr, _) in high.items() if lr != 3e-3} == own
    assert {high[name] for name in own} == {(1e-3, 0.0)}
    assert {lr for lr, _ in rates(cls(width=16), 3e-4).values()} == {3e-4}
    assert {lr for lr, _ in rates(cls(width=16, **{setting: None}), 3e-3).values()} == {3e-3}
    assert {high[0] for high in rates(cls(width=16, **{setting: 2e-3}), 3e-3).values()} == {3e-3, 2e-3}


@pytest.mark.parametrize(("factor", "rate"), [(0.5, 1.5e-3), (0.25, 7.5e-4), (None, 3e-3), (1.0, 3e-3)])
def test_the_recurrent_parameters_of_the_lru_learn_at_a_share_of_the_rate(factor: float | None, rate: float) -> None:
    found = rates(LRU(width=16, state=8, ssm_lr_factor=factor), 3e-3)
    assert {found[name] for name in RECURRENT} == {(rate, 0.0)}
    assert {lr for name, (lr, _) in found.items() if name not in RECURRENT} == {3e-3}


def test_the_optimiser_steps_with_the_rates() -> None:
    configured = AdamWCosine(lr=1e-2, warmup=0.0).configure(S4D(width=16), 10)
    assert [group["lr"] for group in configured["optimizer"].param_groups] == [1e-2, 1e-2, 1e-3]


@pytest.mark.parametrize(
    ("cls", "settings"),
    [(cls, {setting: bad}) for cls, setting, _ in OWN for bad in (0.0, -1.0)]
    + [(LRU, {"ssm_lr_factor": 0.0})],
)  # fmt: skip
def test_bad_rates_are_refused(cls: type[Mixer], settings: dict[str, Any]) -> None:
    ((key, value),) = settings.items()
    with pytest.raises(
        ValueError, match=f"^{re.escape(f'{key}={value}: must be a number above 0, or null: the common rate')}$"
    ):
        cls(width=16, **settings)
