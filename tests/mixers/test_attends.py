"""Mixers that return attention weights: the contract, and outputs computed from the weights."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hybridlab.mixers.attention.differential import Differential
from hybridlab.mixers.attention.full import Full
from hybridlab.mixers.base import Attends, Mixer
from hybridlab.mixers.parts.projections import join_heads, split_heads
from hybridlab.mixers.sparse.bigbird import Bigbird
from hybridlab.mixers.sparse.dilated import Dilated
from hybridlab.mixers.sparse.moba import Moba
from hybridlab.mixers.sparse.nsa import Nsa
from hybridlab.mixers.sparse.routing import Routing
from hybridlab.mixers.sparse.sliding import Sliding
from hybridlab.mixers.sparse.strided import Strided
from tests.mixers.subject import WIDTH, Subject, tokens

BLOCKS = {"block": 8, "random_blocks": 1, "window_blocks": 1, "global_blocks": 1, "seed": 3}


@torch.no_grad()
def test_weights_of_each_token_sum_to_1_and_a_causal_one_has_none_ahead(attending_subject: Subject) -> None:
    subject, mixer = attending_subject, attending_subject.build()
    assert isinstance(mixer, Attends)
    for length in (1, 33, subject.long):
        at = torch.arange(0, length, 5)
        weights = mixer.attention(tokens(2, length), at)
        assert weights.shape[::2] == (2, len(at))
        assert weights.shape[3] == length
        assert weights.min() >= 0
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
        if subject.causal:
            assert (weights * (torch.arange(length) > at[:, None])).max() == 0


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (Full, {"kv_heads": 2, "qk_norm": True}),
        (Sliding, {"window": 5, "global_tokens": 3, "kv_heads": 1}),
        (Strided, {"stride": 7, "kv_heads": 2}),
        (Dilated, {"window": 5, "dilation": 4, "rope": None}),
        (Bigbird, BLOCKS),
    ],
)
def test_values_are_read_with_these_weights(cls: type[Mixer], settings: dict[str, Any], causal: bool) -> None:
    read_with_its_weights(cls(width=WIDTH, causal=causal, **settings))


@pytest.mark.parametrize("settings", [{"block": 8, "top_k": 3}, {"block": 5, "top_k": 2, "kv_heads": 2}], ids=str)
def test_moba_reads_with_these_weights(settings: dict[str, Any]) -> None:
    read_with_its_weights(Moba(width=WIDTH, **settings))


def test_routing_reads_with_these_weights_times_the_margin_of_the_token() -> None:
    mixer = Routing(width=WIDTH, clusters=3, window=9)
    margins = mixer.double()._project(tokens(2, 60), 0)[3]
    read_with_its_weights(mixer, margins[..., None])


@pytest.mark.parametrize("kv_heads", [1, 2])
@torch.no_grad()
def test_nsa_reads_with_these_weights_where_all_branches_have_the_same_values(kv_heads: int) -> None:
    sizes = {"compress_block": 8, "compress_stride": 4, "select_block": 8, "top_k": 4, "window": 5}
    mixer = Nsa(width=WIDTH, kv_heads=kv_heads, **sizes).double()
    _, selected, _, window = mixer.branches.weight.chunk(4)
    for weight in (selected, window):
        weight.copy_(mixer.projections.value.weight)
    torch.nn.init.zeros_(mixer.value_compression.outer.weight)  # a compressed block is the mean of its tokens
    gates = split_heads(mixer.gates(tokens(2, 60)).sigmoid(), 3).clone()
    gates[:, :, :7, 0] = 0  # no block is finished
    read_with_its_weights(mixer, gates.sum(-1, keepdim=True))


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@torch.no_grad()
def test_differential_weights_are_those_of_both_softmaxes_by_their_size(causal: bool) -> None:
    mixer = Differential(width=WIDTH, causal=causal, rope=None).double()
    x, own = tokens(2, 60), mixer.projections
    q, k = (split_heads(project(x), own.head_width) for project in (own.query, own.key))
    scores = q @ k.mT / own.head_width**0.5
    if causal:
        scores = scores.masked_fill(torch.ones(60, 60, dtype=torch.bool).triu(1), -torch.inf)
    maps = scores.softmax(-1)
    a, b, c, d = mixer.vectors
    signed = maps[:, ::2] - (torch.exp(a @ b) - torch.exp(c @ d) + mixer.lambda_init) * maps[:, 1::2]
    expected = signed.abs() / signed.abs().sum(-1, keepdim=True)
    torch.testing.assert_close(mixer.attention(x, torch.arange(60)), expected)


@torch.no_grad()
def read_with_its_weights(mixer: Any, scale: Tensor | float = 1.0) -> None:
    """Check that the weights, applied to the values, give the mixer's output."""
    mixer = mixer.double()
    x, own = tokens(2, 60), mixer.projections
    weights = mixer.attention(x, torch.arange(x.shape[1]))
    values = split_heads(own.value(x), own.head_width).repeat_interleave(weights.shape[1] // own.kv_heads, dim=1)
    torch.testing.assert_close(mixer.out(join_heads(scale * (weights @ values))), mixer(x))
    at = torch.tensor([3, 30, 59])
    torch.testing.assert_close(mixer.attention(x, at), weights[:, :, at])
