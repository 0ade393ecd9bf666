"""Kimi Delta Attention against a loop over tokens and heads; bad values, initialisation."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridlab.mixers.linear.kda import KDA
from tests.mixers.agree import WIDTH, agree
from tests.mixers.equations import convolved, silu


def kda(mixer: KDA, x: Tensor) -> Tensor:
    """Multiply each head's state by (I - β k kᵀ) Diag(α), written out, then add β k vᵀ."""
    heads, width = mixer.strength.out_features, mixer.head_width
    strength = mixer.strongest / (1 + torch.exp(-x @ mixer.strength.weight.mT))
    step = torch.log1p(torch.exp(x @ mixer.step[0].weight.mT @ mixer.step[1].weight.mT + mixer.step_bias))
    mixed = silu(convolved(x @ mixer.in_projection.weight.mT, mixer.convolution.weight))
    outputs = []
    for head in range(heads):
        q, k, v = (part.chunk(heads, dim=-1)[head] for part in mixed.chunk(3, dim=-1))
        q, k = (part / torch.sqrt(part.square().sum(-1, keepdim=True) + 1e-6) for part in (q, k))
        kept = torch.exp(-torch.exp(mixer.log_rate[head]) * step.chunk(heads, dim=-1)[head])
        state, read = x.new_zeros(x.shape[0], width, width), []
        for t in range(x.shape[1]):
            beta, key = strength[:, t, head, None, None], k[:, t, :, None]
            transition = (torch.eye(width, dtype=x.dtype) - beta * key * key.mT) @ torch.diag_embed(kept[:, t])
            state = transition @ state + beta * key * v[:, t, None, :]
            read.append((state.mT @ q[:, t, :, None]).squeeze(-1) / math.sqrt(width))
        o = torch.stack(read, dim=1)
        outputs.append(o / torch.sqrt(o.square().mean(-1, keepdim=True) + 1e-5) * mixer.norm)
    gate = 1 / (1 + torch.exp(-x @ mixer.gate[0].weight.mT @ mixer.gate[1].weight.mT))
    return (torch.cat(outputs, dim=-1) * gate) @ mixer.out.weight.mT


@pytest.mark.parametrize("t", [1, 9, 130])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"heads": 8, "decay_gate_rank": 3, "negative_eigenvalues": True, "chunk": 64},
        {"heads": 2, "conv_size": 2, "chunk": 8},
        {"heads": 1, "conv_size": 1, "chunk": 1},
    ],
    ids=str,
)
def test_kda(settings: dict[str, Any], t: int) -> None:
    agree(KDA(width=WIDTH, **settings), kda, t)


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
