"""Differential attention against its weights written out, and against the one of transformers."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridlab.mixers.attention.differential import Differential
from tests.mixers.agree import WIDTH, agree
from tests.mixers.masked_attention import BOTH
from tests.mixers.oracles import rotated


def differential(mixer: Differential, x: Tensor) -> Tensor:
    """Each head with both of its matrices of weights."""
    own, t = mixer.projections, x.shape[1]
    each = own.head_width
    a, b, c, d = mixer.vectors
    weight = torch.exp(torch.dot(a, b)) - torch.exp(torch.dot(c, d)) + mixer.lambda_init
    ahead = torch.ones(t, t, dtype=torch.bool).triu(1)
    outputs = []
    for head in range(x.shape[2] // (2 * each)):
        maps = []
        for i in (2 * head, 2 * head + 1):
            q, k = (x @ project.weight[i * each : (i + 1) * each].mT for project in (own.query, own.key))
            if own.rope is not None:
                q, k = rotated(q, own.rope), rotated(k, own.rope)
            scores = q @ k.mT / each**0.5
            maps.append((scores.masked_fill(ahead, -torch.inf) if mixer.causal else scores).softmax(-1))
        v = x @ own.value.weight[2 * head * each : 2 * (head + 1) * each].mT
        o = (maps[0] - weight * maps[1]) @ v
        o = o / (o.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mixer.norm
        outputs.append((1 - mixer.lambda_init) * o)
    return torch.cat(outputs, dim=-1) @ mixer.out.weight.mT


@BOTH
@pytest.mark.parametrize("t", [1, 9, 70])
@pytest.mark.parametrize("settings", [{}, {"heads": 1}, {"heads": 8, "lambda_init": 0.2}, {"rope": None}], ids=str)
def test_differential(settings: dict[str, Any], t: int, causal: bool) -> None:
    agree(Differential(width=WIDTH, causal=causal, **settings), differential, t)


def test_attention_of_diffllama() -> None:
    modeling = pytest.importorskip("transformers.models.diffllama.modeling_diffllama")
    config = modeling.DiffLlamaConfig(
        hidden_size=64, num_attention_heads=8, num_key_value_heads=8, head_dim=8, attn_implementation="eager"
    )
    torch.manual_seed(0)
    theirs = modeling.DiffLlamaAttention(config, layer_idx=3).eval()
    ours = Differential(width=64, lambda_init=theirs.lambda_init, rope=config.rope_parameters["rope_theta"])
    # There all heads of the second softmax, and second halves of values, follow those of the first.
    order = torch.arange(64).reshape(2, 4, 8).transpose(0, 1).flatten()
    with torch.no_grad():
        for name in ("query", "key", "value"):
            getattr(ours.projections, name).weight.copy_(getattr(theirs, f"{name[0]}_proj").weight[order])
        ours.out.weight.copy_(theirs.o_proj.weight)
        ours.vectors.copy_(torch.stack([theirs.lambda_q1, theirs.lambda_k1, theirs.lambda_q2, theirs.lambda_k2]))
    theirs.groupnorm.eps = 1e-5
    x = torch.randn(2, 50, 64)
    turns = modeling.DiffLlamaRotaryEmbedding(config)(x, torch.arange(50)[None])
    ahead = torch.full((50, 50), -torch.inf).triu(1)
    expected, _ = theirs(x, turns, ahead)
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-5)


def test_starts_with_lambda_near_its_first_value_and_tags_what_takes_no_decay() -> None:
    torch.manual_seed(0)
    mixer = Differential(width=4096, heads=4)
    assert mixer.vectors.std().item() == pytest.approx(0.1, rel=0.05)
    for parameter in (mixer.vectors, mixer.norm):
        assert not parameter.takes_weight_decay  # type: ignore[attr-defined]
        assert not parameter.takes_initialisation  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("width", "settings", "message"),
    [
        (64, {"heads": 0}, "heads=0: must be a whole number of at least 1"),
        (12, {"heads": 4}, "heads=4: has two queries per head; 2·heads must divide the width, 12"),
        (64, {"lambda_init": 1.0}, "lambda_init=1.0: must be a number of at least 0 and below 1"),
        (64, {"lambda_init": -0.1}, "lambda_init=-0.1: must be a number of at least 0 and below 1"),
        (8, {}, "rope=10000.0: needs an even head width, not 1, or null: no positions"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_values_are_refused_in_words(width: int, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Differential(width=width, **settings)
