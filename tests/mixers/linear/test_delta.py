"""The delta rule's mixers against a loop over tokens and heads; bad values, initialisation."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.linear.delta import Delta
from hybridlab.mixers.linear.gated_delta import GatedDelta
from tests.mixers.agree import WIDTH, agree
from tests.mixers.equations import convolved, silu


def delta(mixer: Delta, x: Tensor) -> Tensor:
    """Erase the value stored under the key from each head's state, then write the new one."""
    heads = mixer.strength.out_features
    strength = mixer.strongest * torch.sigmoid(x @ mixer.strength.weight.mT)
    outputs = mixed_in_heads(mixer, x, heads, [WIDTH, WIDTH, WIDTH], strength, torch.ones_like(strength))
    if mixer.gate is not None:
        outputs = outputs * silu(x @ mixer.gate.weight.mT)
    return outputs @ mixer.out.weight.mT


def gated_delta(mixer: GatedDelta, x: Tensor) -> Tensor:
    """Do the same with a state that decays before each token."""
    heads = mixer.strength.out_features
    strength = mixer.strongest * torch.sigmoid(x @ mixer.strength.weight.mT)
    step = torch.log1p(torch.exp(x @ mixer.step.weight.mT + mixer.step_bias))
    kept = torch.exp(-step * torch.exp(mixer.log_rate))
    widths = [heads * mixer.key_width, heads * mixer.key_width, heads * mixer.value_width]
    outputs = mixed_in_heads(mixer, x, heads, widths, strength, kept)
    return (outputs * silu(x @ mixer.gate.weight.mT)) @ mixer.out.weight.mT


def mixed_in_heads(
    mixer: Delta | GatedDelta, x: Tensor, heads: int, widths: list[int], strength: Tensor, kept: Tensor
) -> Tensor:
    mixed = silu(convolved(x @ mixer.in_projection.weight.mT, mixer.convolution.weight))
    outputs = []
    for head in range(heads):
        q, k, v = (part.chunk(heads, dim=-1)[head] for part in mixed.split(widths, dim=-1))
        q, k = (part / torch.sqrt(part.square().sum(-1, keepdim=True) + 1e-6) for part in (q, k))
        state = x.new_zeros(x.shape[0], v.shape[-1], k.shape[-1])  # a map from keys to values
        read = []
        for t in range(x.shape[1]):
            state = kept[:, t, head, None, None] * state
            returned = torch.einsum("bvk,bk->bv", state, k[:, t])
            change = strength[:, t, head, None] * (v[:, t] - returned)
            state = state + torch.einsum("bv,bk->bvk", change, k[:, t])
            read.append(torch.einsum("bvk,bk->bv", state, q[:, t]) / math.sqrt(k.shape[-1]))
        o = torch.stack(read, dim=1)
        outputs.append(o / torch.sqrt(o.square().mean(-1, keepdim=True) + 1e-5) * mixer.norm)
    return torch.cat(outputs, dim=-1)


@pytest.mark.parametrize("t", [1, 9, 130])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"heads": 8, "gate": True},
        {"negative_eigenvalues": True, "chunk": 7},
        {"heads": 1, "conv_size": 1, "chunk": 1, "gate": True, "negative_eigenvalues": True},
    ],
    ids=str,
)
def test_delta(settings: dict[str, Any], t: int) -> None:
    agree(Delta(width=WIDTH, **settings), delta, t)


@pytest.mark.parametrize("t", [1, 9, 130])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"heads": 8, "value_ratio": 1, "negative_eigenvalues": True},
        {"heads": 2, "expand_k": 0.5, "value_ratio": 3, "chunk": 7},
        {"heads": 1, "expand_k": 1.0, "conv_size": 1, "chunk": 1},
    ],
    ids=str,
)
def test_gated_delta(settings: dict[str, Any], t: int) -> None:
    agree(GatedDelta(width=WIDTH, **settings), gated_delta, t)


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
