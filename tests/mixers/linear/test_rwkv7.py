"""RWKV-7's time mixing against a loop over tokens and heads; bad values, initialisation."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridlab.mixers.linear.rwkv7 import RWKV7, LowRank
from tests.mixers.agree import WIDTH, agree


def rwkv7(mixer: RWKV7, x: Tensor) -> Tensor:
    """Apply the paper's equations to row vectors: S ← S (Diag(w) - κᵀ (a ⊙ κ)) + vᵀ k."""
    width = mixer.head_width
    shifted = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
    for_r, for_w, for_k, for_v, for_a, for_g = (x * (1 - share) + shifted * share for share in mixer.shift)
    receptance, key, value = (
        part @ project.weight.mT
        for part, project in ((for_r, mixer.receptance), (for_k, mixer.key), (for_v, mixer.value))
    )
    logits = torch.tanh(for_w @ mixer.decay.down.weight.mT) @ mixer.decay.up.weight.mT + mixer.decay_bias
    decay = torch.exp(-math.exp(-0.5) * sigmoid(logits))
    rate = sigmoid(for_a @ mixer.rate.down.weight.mT @ mixer.rate.up.weight.mT + mixer.rate_bias)
    gate = sigmoid(for_g @ mixer.gate.down.weight.mT) @ mixer.gate.up.weight.mT
    removal = key * mixer.removal_scale
    replacement = key * (1 - mixer.rate_share + mixer.rate_share * rate)
    outputs = []
    for start in range(0, x.shape[-1], width):
        own = slice(start, start + width)
        state, read = x.new_zeros(x.shape[0], width, width), []
        for t in range(x.shape[1]):
            r, k, v, a, w = (part[:, t, None, own] for part in (receptance, replacement, value, rate, decay))
            unit = removal[:, t, None, own] / torch.linalg.vector_norm(removal[:, t, None, own], dim=-1, keepdim=True)
            state = state @ (torch.diag_embed(w[:, 0]) - unit.mT @ (a * unit)) + v.mT @ k
            o = (r @ state.mT)[:, 0]
            o = (o - o.mean(-1, keepdim=True)) / torch.sqrt(o.var(-1, keepdim=True, correction=0) + 1e-5 * width)
            bonus = (r * mixer.bonus[own] * k).sum(-1) * v[:, 0]
            read.append(o * mixer.norm[own] + mixer.norm_bias[own] + bonus)
        outputs.append(torch.stack(read, dim=1))
    return (torch.cat(outputs, dim=-1) * gate) @ mixer.out.weight.mT


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


@pytest.mark.parametrize("t", [1, 9, 130])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"heads": 8, "decay_rank": 3, "rate_rank": 4, "gate_rank": 5, "chunk": 128},
        {"heads": 2, "chunk": 8},
        {"heads": 1, "chunk": 1},
    ],
    ids=str,
)
def test_rwkv7(settings: dict[str, Any], t: int) -> None:
    agree(RWKV7(width=WIDTH, **settings), rwkv7, t)


def test_chunks_longer_than_what_is_safe_stay_finite_at_the_strongest_decay() -> None:
    torch.manual_seed(0)
    mixer = RWKV7(width=64, chunk=256)
    with torch.no_grad():
        mixer.decay_bias.fill_(100)
    x = torch.randn(1, 600, 64, requires_grad=True)
    y = mixer(x)
    gradients = torch.autograd.grad(y.square().sum(), [x, *mixer.parameters()])
    assert all(each.isfinite().all() for each in (y, *gradients))
    torch.testing.assert_close(y.double(), mixer.double()(x.double()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 5}, "heads=5: must divide the width, 64"),
        ({"heads": -1}, "heads=-1: must be a whole number of at least 1"),
        ({"decay_rank": 0}, "decay_rank=0: must be a whole number of at least 1, or null: from the width"),
        ({"chunk": 12}, "chunk=12: must be a power of two"),
    ],
    ids=str,
)
def test_bad_values_are_refused_in_words(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RWKV7(width=64, **settings)


@pytest.mark.parametrize(("width", "decay", "gate"), [(64, 32, 32), (256, 32, 64), (768, 64, 128), (1024, 64, 160)])
def test_ranks_grow_with_the_root_of_the_width(width: int, decay: int, gate: int) -> None:
    with torch.device("meta"):
        mixer = RWKV7(width=width)
    assert mixer.decay.down.out_features == mixer.rate.down.out_features == decay
    assert mixer.gate.down.out_features == gate


def test_starts_with_decays_from_slow_to_fast_whatever_the_token() -> None:
    torch.manual_seed(0)
    mixer = RWKV7(width=256)
    log_decay = -math.exp(-0.5) * torch.sigmoid(mixer.decay_bias.detach())
    assert torch.equal(log_decay.sort(descending=True).values, log_decay)
    assert log_decay[0].item() == pytest.approx(-0.0025, abs=1e-4)
    assert log_decay[-1].item() == pytest.approx(-0.375, abs=5e-3)
    x = torch.randn(1, 3, 256)
    assert mixer.decay(x).abs().max() == 0
    assert mixer.rate(x).abs().max() == 0
    assert mixer.shift.min() >= 0
    assert mixer.shift.max() <= 1


def test_low_rank_maps_keep_what_they_start_from() -> None:
    torch.manual_seed(0)
    up = LowRank(64, 16, torch.nn.Tanh()).up.weight.detach()
    torch.testing.assert_close(up.mT @ up, 0.01 * torch.eye(16))


def test_tags_what_takes_no_decay_and_keeps_its_initialisation() -> None:
    tagged = {
        name: (parameter.takes_weight_decay, parameter.takes_initialisation)
        for name, parameter in RWKV7(width=64).named_parameters()
        if hasattr(parameter, "takes_weight_decay")
    }
    vectors = ("shift", "decay_bias", "rate_bias", "removal_scale", "rate_share", "bonus", "norm", "norm_bias")
    maps = (f"{name}.{part}.weight" for name in ("decay", "rate", "gate") for part in ("down", "up"))
    assert tagged == dict.fromkeys(vectors, (False, False)) | dict.fromkeys(maps, (True, False))
