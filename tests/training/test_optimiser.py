import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from hybridlab.mixers.base import tag
from hybridlab.training.optimiser import AdamWCosine, parameter_groups


def test_the_rate_warms_up_and_decays_to_its_floor():
    settings = AdamWCosine(lr=1.0, warmup=0.1, floor=0.1)
    rates = [settings.rate(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.1 + 0.9 * 0.5)
    assert rates[100] == pytest.approx(0.1)
    assert all(before >= after for before, after in pairwise(rates[10:]))


def test_tagged_matrices_and_vectors_take_no_weight_decay():
    module = nn.Linear(3, 2)
    module.kernel = tag(nn.Parameter(torch.ones(4, 4)), decay=False)
    module.matrix = tag(nn.Parameter(torch.ones(4, 4)), initialise=False)
    decayed, kept = parameter_groups(module, 0.1)
    assert decayed["weight_decay"] == 0.1
    assert kept["weight_decay"] == 0.0
    assert {id(p) for p in decayed["params"]} == {id(module.weight), id(module.matrix)}
    assert {id(p) for p in kept["params"]} == {id(module.bias), id(module.kernel)}


def test_tagged_rates_make_groups_of_their_own():
    module = nn.ParameterDict({name: nn.Parameter(torch.ones(2, 2)) for name in ("plain", "capped", "twice", "both")})
    tag(module["capped"], lr=1e-3, decay=False)
    tag(module["twice"], lr_factor=2.0)
    tag(module["both"], lr_factor=0.5, lr=1e-3)
    module["vector"] = tag(nn.Parameter(torch.ones(2)), lr=1e-3)

    def rates(lr):
        configured = AdamWCosine(lr=lr, weight_decay=0.1).configure(module, 10)
        names = {id(parameter): name for name, parameter in module.items()}
        groups = configured["optimizer"].param_groups
        return {
            names[id(parameter)]: (group["initial_lr"], group["weight_decay"])
            for group in groups
            for parameter in group["params"]
        }

    assert rates(1e-2) == {
        "plain": (1e-2, 0.1), "capped": (1e-3, 0.0), "twice": (2e-2, 0.1), "both": (1e-3, 0.1), "vector": (1e-3, 0.0),
    }  # fmt: skip
    # Below the cap the capped parameters follow the common rate, and need no group of their own.
    assert rates(5e-4) == {
        "plain": (5e-4, 0.1), "capped": (5e-4, 0.0), "twice": (1e-3, 0.1), "both": (2.5e-4, 0.1), "vector": (5e-4, 0.0),
    }  # fmt: skip
    assert [len(group["params"]) for group in parameter_groups(module, 0.1, 5e-4)] == [1, 2, 1, 1]


def test_the_schedule_multiplies_every_rate_and_a_resumed_optimiser_keeps_them():
    def configured():
        module = nn.Linear(2, 2)
        tag(module.bias, lr=1e-3)
        return AdamWCosine(lr=0.5, warmup=0.5).configure(module, 10)

    def step(optimiser, schedule):
        optimiser.step()
        schedule.step()
        return [group["lr"] for group in optimiser.param_groups]

    one, other = ((each["optimizer"], each["lr_scheduler"]["scheduler"]) for each in (configured(), configured()))
    step(*one)
    for mine, theirs in zip(other, one, strict=True):
        mine.load_state_dict(theirs.state_dict())
    assert step(*other) == step(*one) == pytest.approx([0.3, 0.3, 6e-4])


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"lr": -1.0}, {"lr": math.nan}, {"lr_factor": 0.0}])
def test_bad_rates_of_a_parameter_are_refused(bad):
    ((key, value),) = bad.items()
    with pytest.raises(ValueError, match=f"^{key}={value}: must be a number above 0"):
        tag(nn.Parameter(torch.ones(2)), **bad)


def test_lightning_changes_the_rate_every_step():
    module = nn.Linear(2, 2)
    configured = AdamWCosine(lr=0.5, warmup=0.5).configure(module, 10)
    optimiser, scheduler = configured["optimizer"], configured["lr_scheduler"]
    assert scheduler["interval"] == "step"
    seen = []
    for _ in range(4):
        seen.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler["scheduler"].step()
    assert seen == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert not math.isclose(seen[0], seen[1])


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"lr": 1.0, "warmup": 2.0}, {"lr": 1.0, "weight_decay": -1.0}])
def test_bad_settings_are_refused(bad):
    key, value = list(bad.items())[-1]
    with pytest.raises(ValueError, match=f"^{key}={value}: "):
        AdamWCosine(**bad)
