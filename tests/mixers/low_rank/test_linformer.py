"""Linformer and its causal form against one token at a time; bad values, initialisation."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hybridlab.mixers.base import Mixer, state_bytes
from hybridlab.mixers.low_rank.linformer import Linformer
from hybridlab.mixers.low_rank.linformer_causal import LinformerCausal
from tests.mixers.agree import WIDTH, agree


def linformer(mixer: Linformer, x: Tensor) -> Tensor:
    """Attend in each head separately, with explicit sums over positions."""
    t, each = x.shape[1], mixer.head_width
    outputs = []
    for start in range(0, x.shape[2], each):
        q, k, v = (x @ project.weight[start : start + each].mT for project in (mixer.query, mixer.key, mixer.value))
        few_k, few_v = (
            sum(at_position(table, i, t)[:, None] * full[:, i, None] for i in range(t))
            for table, full in ((mixer.key_sums, k), (mixer.value_sums, v))
        )
        outputs.append(torch.stack([attended(q[:, i], few_k, few_v) for i in range(t)], dim=1))
    return torch.cat(outputs, dim=-1) @ mixer.out.weight.mT


def at_position(table: Tensor, position: int, t: int) -> Tensor:
    """Return one row of the table, interpolated to t positions if the table is shorter."""
    length = len(table)
    if t <= length:
        return table[position]
    centre = min(max((position + 0.5) * length / t - 0.5, 0), length - 1)
    below = math.floor(centre)
    above = min(below + 1, length - 1)
    return ((below + 1 - centre) * table[below] + (centre - below) * table[above]) * length / t


def linformer_causal(mixer: LinformerCausal, x: Tensor) -> Tensor:
    """List the slots of earlier blocks and the tokens of the window for each token and head."""
    projections, block, rank = mixer.projections, mixer.block, mixer.rank
    each, rope = projections.head_width, projections.rope
    q, k, v = (x @ project.weight.mT for project in (projections.query, projections.key, projections.value))
    scores = x @ mixer.scores.weight.mT
    slots = [
        [slot_of(mixer, number, slot, k, v, scores) for slot in range(rank)] for number in range(x.shape[1] // block)
    ]
    outputs = []
    for i in range(x.shape[1]):
        heads = []
        for head in range(x.shape[2] // each):
            own = slice(head * each, (head + 1) * each)
            keys, values = [], []
            for number in range(i // block):
                for slot_k, slot_v in slots[number]:
                    keys.append(turned(slot_k[:, own], (number + 1) * block - 1, rope))
                    values.append(slot_v[:, own])
            for j in range(max(i // block - 1, 0) * block, i + 1):
                keys.append(turned(normalised(mixer.window_norm, k[:, j])[:, own], j, rope))
                values.append(normalised(mixer.window_norm, v[:, j])[:, own])
            query = turned(q[:, i, own], i, rope)
            heads.append(attended(query, torch.stack(keys, dim=1), torch.stack(values, dim=1)))
        outputs.append(torch.cat(heads, dim=-1))
    return torch.stack(outputs, dim=1) @ mixer.out.weight.mT


def slot_of(
    mixer: LinformerCausal, number: int, slot: int, k: Tensor, v: Tensor, scores: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the key and value of one slot, heads joined; each head has its own weights."""
    each, tokens = mixer.projections.head_width, range(number * mixer.block, (number + 1) * mixer.block)
    found = []
    for full in (k, v):
        heads = []
        for head in range(full.shape[2] // each):
            weights = [scores[:, j, head * mixer.rank + slot].exp() for j in tokens]
            mean = sum(
                w[:, None] * full[:, j, head * each : (head + 1) * each] for w, j in zip(weights, tokens, strict=True)
            )
            heads.append(mean / sum(weights)[:, None])  # type: ignore[index, operator]
        found.append(normalised(mixer.slot_norm, torch.cat(heads, dim=-1)))
    return found[0], found[1]


def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = ((q[:, None] * k).sum(-1) / math.sqrt(q.shape[-1])).exp()
    return (weights[..., None] * v).sum(1) / weights.sum(1, keepdim=True)


def normalised(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def turned(x: Tensor, position: int, base: float | None) -> Tensor:
    if base is None:
        return x
    half = x.shape[-1] // 2
    angle = position * base ** (-torch.arange(half, dtype=x.dtype) / half)
    pairs = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([pairs.real, pairs.imag], dim=-1)


@pytest.mark.parametrize("t", [1, 7, 8, 9, 30])
@pytest.mark.parametrize(
    "settings",
    [
        {"rank": 5, "max_length": 8},
        {"heads": 1, "rank": 1, "max_length": 30},
        {"heads": 8, "rank": 40, "max_length": 1},
    ],
    ids=str,
)
def test_linformer(settings: dict[str, Any], t: int) -> None:
    agree(Linformer(width=WIDTH, **settings), linformer, t)


@pytest.mark.parametrize("t", [1, 5, 6, 17, 24])
@pytest.mark.parametrize(
    "settings",
    [
        {"block": 5, "rank": 2},
        {"heads": 2, "block": 1, "rank": 1, "rope": 100.0},
        {"heads": 8, "block": 6, "rank": 3, "rope": None},
        {"heads": 1, "block": 40, "rank": 4},
    ],
    ids=str,
)
def test_linformer_causal(settings: dict[str, Any], t: int) -> None:
    agree(LinformerCausal(width=WIDTH, **settings), linformer_causal, t)


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (Linformer, {"heads": 5}, "heads=5: must divide the width, 64"),
        (Linformer, {"rank": 0}, "rank=0: must be a whole number of at least 1"),
        (LinformerCausal, {"heads": 5}, "heads=5: must divide the width, 64"),
        (LinformerCausal, {"block": 0}, "block=0: must be a whole number of at least 1"),
        (LinformerCausal, {"rope": 0.0}, "rope=0.0: must be a number above 0, or null: no positions"),
        (
            LinformerCausal,
            {"heads": 64},
            "rope=10000.0: needs an even head width, not 1, or null: no positions",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_values_are_refused_in_words(cls: type[Mixer], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cls(width=64, **settings)


def test_linformer_starts_with_sums_of_the_size_of_their_terms_and_keeps_them() -> None:
    torch.manual_seed(0)
    mixer = Linformer(width=64)
    for table in (mixer.key_sums, mixer.value_sums):
        assert table.shape == (512, 128)
        assert table.std().item() == pytest.approx(512**-0.5, rel=0.02)
        assert (table.takes_weight_decay, table.takes_initialisation) == (True, False)  # type: ignore[attr-defined]


def test_linformer_causal_starts_with_norms_that_take_no_decay() -> None:
    tagged = {
        name: (parameter.takes_weight_decay, parameter.takes_initialisation)
        for name, parameter in LinformerCausal(width=64).named_parameters()
        if hasattr(parameter, "takes_weight_decay")
    }
    assert tagged == {
        f"{norm}.{name}": (False, True) for norm in ("slot_norm", "window_norm") for name in ("weight", "bias")
    }


@torch.no_grad()
def test_the_causal_state_grows_by_slots_alone() -> None:
    mixer = LinformerCausal(width=64, block=16, rank=2)
    x = torch.randn(1, 160, 64)
    sizes = [state_bytes(mixer.extend(x[:, :t], mixer.initial_state(1, x))[1]) for t in (32, 48, 160)]
    # Two keys and two values of the whole width for each block of 16.
    assert [later - sizes[0] for later in sizes] == [0, 4 * 64 * 4, 8 * 4 * 64 * 4]
