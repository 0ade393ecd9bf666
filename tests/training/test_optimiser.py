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
