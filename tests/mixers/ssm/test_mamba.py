"""Mamba against its recurrence, step by step, and transformers; bad values, initialisation."""

import math
import re
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridlab.evaluation.cost.live_bytes import LiveBytes
from hybridlab.mixers.ssm.mamba import Mamba, SelectiveStateSpace
from tests.mixers.agree import WIDTH, agree
from tests.mixers.equations import convolved, silu


def oracle(mixer: Mamba, x: Tensor) -> Tensor:
    """Step through the tokens; for the backward direction, reverse the sequence by hand."""
    expanded = mixer.out.weight.shape[1]
    mixed, gate = x @ mixer.in_projection.weight[:expanded].mT, x @ mixer.in_projection.weight[expanded:].mT
    y = stepped(mixer.ahead, mixed)
    if mixer.back is not None:
        turned = torch.stack([mixed[:, t] for t in reversed(range(x.shape[1]))], dim=1)
        back = stepped(mixer.back, turned)
        y = y + torch.stack([back[:, t] for t in reversed(range(x.shape[1]))], dim=1)
    return (y * silu(gate)) @ mixer.out.weight.mT


def stepped(part: SelectiveStateSpace, x: Tensor) -> Tensor:
    rank, n = part.step_projection.weight.shape[1], part.log_rate.shape[0]
    assert part.convolution.bias is not None
    x = silu(convolved(x, part.convolution.weight) + part.convolution.bias)
    low, b, c = (x @ part.parameter_projection.weight.mT).split([rank, n, n], dim=-1)
    delta = torch.log1p(torch.exp(low @ part.step_projection.weight.mT + part.step_bias))
    state, outputs = torch.zeros(len(x), x.shape[2], n, dtype=x.dtype), []
    for t in range(x.shape[1]):
        decay = torch.exp(-part.log_rate.exp().mT * delta[:, t, :, None])
        state = decay * state + delta[:, t, :, None] * b[:, t, None, :] * x[:, t, :, None]
        outputs.append((state * c[:, t, None, :]).sum(-1) + part.skip * x[:, t])
    return torch.stack(outputs, dim=1)


@pytest.mark.parametrize("t", [1, 9, 70, 131])
@pytest.mark.parametrize(
    "settings",
    [{}, {"state": 1, "conv_size": 1}, {"expand": 1, "state": 5, "dt_rank": 7, "conv_size": 3}, {"causal": False}],
    ids=str,
)
def test_mixer_is_its_recurrence(settings: dict[str, Any], t: int) -> None:
    torch.manual_seed(0)
    agree(Mamba(width=WIDTH, **settings), oracle, t)


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


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers comes with hybridlab[test]")
def test_mixer_is_that_of_transformers() -> None:
    from transformers.models.mamba.configuration_mamba import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    torch.manual_seed(0)
    theirs = MambaMixer(MambaConfig(hidden_size=64, state_size=8, num_hidden_layers=1), layer_idx=0).eval()
    ours = Mamba(width=64, state=8)
    part = ours.ahead
    assert part.convolution.bias is not None
    with torch.no_grad():
        theirs.conv1d.bias.normal_()
        theirs.D.normal_()
        for mine, other in (
            (ours.in_projection.weight, theirs.in_proj.weight),
            (part.convolution.weight, theirs.conv1d.weight[:, 0]),
            (part.convolution.bias, theirs.conv1d.bias),
            (part.parameter_projection.weight, theirs.x_proj.weight),
            (part.step_projection.weight, theirs.dt_proj.weight),
            (part.step_bias, theirs.dt_proj.bias),
            (part.log_rate, theirs.A_log.mT),
            (part.skip, theirs.D),
            (ours.out.weight, theirs.out_proj.weight),
        ):
            mine.copy_(other)
        x = torch.randn(2, 100, 64)
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
