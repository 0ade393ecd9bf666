"""Mamba: bad values, initialisation, memory."""

import math
import re

import pytest
import torch

from hybridlab.evaluation.cost.live_bytes import LiveBytes
from hybridlab.mixers.ssm.mamba import Mamba


@pytest.mark.parametrize("name", ["expand", "state", "conv_size", "dt_rank"])
@pytest.mark.parametrize("value", [0, -1])
def test_bad_values_are_refused_in_words(name: str, value: int) -> None:
    null = ", or null: a sixteenth of the width" if name == "dt_rank" else ""
    message = f"{name}={value}: must be a whole number of at least 1{null}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Mamba(width=64, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("width", "rank"), [(64, 4), (65, 5), (1024, 64)])
def test_rank_is_a_sixteenth_of_the_width_if_not_given(width: int, rank: int) -> None:
    with torch.device("meta"):
        assert Mamba(width=width).ahead.step_projection.in_features == rank
        assert Mamba(width=width, dt_rank=3).ahead.step_projection.in_features == 3


def test_starts_as_the_paper_prescribes() -> None:
    torch.manual_seed(0)
    part = Mamba(width=512).ahead
    step = torch.nn.functional.softplus(part.step_bias.detach())
    assert 1e-3 * 0.999 < step.min() < 1.1e-3
    assert 0.09 < step.max() < 1e-1 * 1.001
    assert step.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.15)
    torch.testing.assert_close(part.log_rate.exp(), torch.arange(1.0, 17)[:, None].expand(16, 1024))
    assert part.skip.eq(1).all()
    bound = 32**-0.5
    weight = part.step_projection.weight.detach()
    assert 0.99 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_training_holds_no_state_of_every_token() -> None:
    batch, t, width, state = 1, 2048, 32, 128
    mixer, x = Mamba(width=width, state=state), torch.randn(batch, t, width, requires_grad=True)
    with LiveBytes([x, *mixer.parameters()]) as held:
        mixer(x).sum().backward()
    states = batch * t * 2 * width * state * 4  # bytes
    assert held.largest <= states / 8
    assert held.peak < states / 2


@pytest.mark.parametrize("causal", [True, False])
def test_tags_what_takes_no_decay_and_keeps_its_initialisation(causal: bool) -> None:
    tagged = {
        name: (parameter.takes_weight_decay, parameter.takes_initialisation)
        for name, parameter in Mamba(width=64, causal=causal).named_parameters()
        if hasattr(parameter, "takes_weight_decay")
    }
    of_one = {
        "log_rate": (False, False),
        "step_bias": (False, False),
        "skip": (False, False),
        "step_projection.weight": (True, False),
        "convolution.weight": (True, False),
        "convolution.bias": (False, False),
    }
    directions = ["ahead"] if causal else ["ahead", "back"]
    assert tagged == {f"{direction}.{name}": tags for direction in directions for name, tags in of_one.items()}


def test_backward_direction_has_parameters_of_its_own() -> None:
    mixer = Mamba(width=64, causal=False)
    assert mixer.back is not None
    assert not {id(each) for each in mixer.ahead.parameters()} & {id(each) for each in mixer.back.parameters()}
