"""Gated linear attention against a loop over tokens and heads; bad values, initialisation."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridlab.mixers.linear.gla import GLA
from tests.mixers.agree import WIDTH, agree
from tests.mixers.equations import silu


def gla(mixer: GLA, x: Tensor) -> Tensor:
    """Decay each row of a head's state at its own rate before a token is written."""
    heads = mixer.key.out_features // mixer.key_width
    bottleneck, up = mixer.decay
    logits = x @ bottleneck.weight.mT @ up.weight.mT + mixer.decay_bias
    kept = (1 / (1 + torch.exp(-logits))) ** (1 / mixer.temperature)
    outputs = []
    for head in range(heads):
        q, k, v, decay = (
            part.chunk(heads, dim=-1)[head]
            for part in (x @ mixer.query.weight.mT, x @ mixer.key.weight.mT, x @ mixer.value.weight.mT, kept)
        )
        state, read = x.new_zeros(x.shape[0], k.shape[-1], v.shape[-1]), []
        for t in range(x.shape[1]):
            state = decay[:, t, :, None] * state + k[:, t, :, None] * v[:, t, None, :]
            read.append(torch.einsum("bkv,bk->bv", state, q[:, t]) / k.shape[-1] ** 0.5)
        o = torch.stack(read, dim=1)
        outputs.append(o / torch.sqrt(o.square().mean(-1, keepdim=True) + 1e-5) * mixer.norm)
    return (torch.cat(outputs, dim=-1) * silu(x @ mixer.gate.weight.mT)) @ mixer.out.weight.mT


@pytest.mark.parametrize("t", [1, 9, 130])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"heads": 8, "expand_k": 1.0, "temperature": 1.0, "chunk": 16},
        {"heads": 2, "expand_k": 0.25, "expand_v": 2.0, "decay_rank": 3, "chunk": 8},
        {"heads": 1, "temperature": 0.5, "chunk": 1},
    ],
    ids=str,
)
def test_gla(settings: dict[str, Any], t: int) -> None:
    agree(GLA(width=WIDTH, **settings), gla, t)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 0}, "heads=0: must be a whole number of at least 1"),
        ({"chunk": 48}, "chunk=48: must be a power of two"),
        ({"expand_k": 0.3}, "expand_k=0.3: times the width, 64, must be a multiple of heads, 4, above 0"),
        ({"expand_v": 0.0}, "expand_v=0.0: times the width, 64, must be a multiple of heads, 4, above 0"),
        ({"expand_v": -1.0}, "expand_v=-1.0: times the width, 64, must be a multiple of heads, 4, above 0"),
        ({"heads": 64}, "expand_k=0.5: times the width, 64, must be a multiple of heads, 64, above 0"),
        ({"temperature": 0.0}, "temperature=0.0: must be a number above 0"),
    ],
    ids=str,
)
def test_bad_values_are_refused_in_words(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GLA(width=64, **settings)


def test_tags_what_takes_no_decay_and_keeps_its_initialisation() -> None:
    tagged = {
        name: (parameter.takes_weight_decay, parameter.takes_initialisation)
        for name, parameter in GLA(width=64).named_parameters()
        if hasattr(parameter, "takes_weight_decay")
    }
    assert tagged == {"decay_bias": (False, False), "norm": (False, False)}
