"""Linear attention and its feature maps, Performer, Based and retention, one token at a time."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridlab.mixers.attention.full import Full
from hybridlab.mixers.linear.based import Based
from hybridlab.mixers.linear.linear import Linear
from hybridlab.mixers.linear.performer import Performer
from hybridlab.mixers.linear.retention import Retention
from hybridlab.mixers.parts.feature_maps import FEATURE_MAPS, Hedgehog
from tests.mixers.agree import WIDTH, agree
from tests.mixers.equations import rotated, silu

EPSILON = 1e-10


@pytest.mark.parametrize("t", [1, 9, 100])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("normalise", [True, False], ids=["normalised", "rms"])
@pytest.mark.parametrize("feature_map", list(FEATURE_MAPS))
def test_linear(feature_map: str, normalise: bool, causal: bool, t: int) -> None:
    mixer = Linear(width=WIDTH, feature_map=feature_map, normalise=normalise, chunk=16, causal=causal)
    agree(mixer, linear, t)


@pytest.mark.parametrize("t", [1, 9, 100])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize(
    "settings", [{}, {"heads": 1, "features": 40, "chunk": 7}, {"heads": 8, "features": 5}], ids=str
)
def test_performer(settings: dict[str, Any], causal: bool, t: int) -> None:
    agree(Performer(width=WIDTH, causal=causal, **settings), performer, t)


@pytest.mark.parametrize("t", [1, 9, 150])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("settings", [{}, {"heads": 1, "chunk": 7}, {"heads": 8, "feature_width": 3}], ids=str)
def test_based(settings: dict[str, Any], causal: bool, t: int) -> None:
    agree(Based(width=WIDTH, causal=causal, **settings), based, t)


@pytest.mark.parametrize("t", [1, 9, 150])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"expand_v": 1, "rope": None},
        {"norm": "rms"},
        {"heads": 1, "rope": 100.0, "chunk": 7},
        {"heads": 16, "expand_v": 3},
    ],
    ids=str,
)
def test_retention(settings: dict[str, Any], t: int) -> None:
    agree(Retention(width=WIDTH, **settings), retention, t)


def linear(mixer: Linear, x: Tensor) -> Tensor:
    """Weigh the values by φ(q)·φ(k); normalise by the weights' sum or by an RMS norm."""
    heads = []
    for head, (q, k, v) in enumerate(per_head(mixer.projections, x, mixer.projections.kv_heads)):
        phi_q, phi_k = (features(each, y, head) for each, y in ((mixer.query_features, q), (mixer.key_features, k)))
        outputs = []
        for now, seen in visible(x.shape[1], mixer.causal):
            weights = (phi_q[:, now, None] * phi_k[:, seen]).sum(-1)
            o = (weights[:, :, None] * v[:, seen]).sum(1)
            if mixer.normalise:
                outputs.append(o / (weights.sum(1, keepdim=True) + EPSILON))
            else:
                outputs.append(o / (o.square().mean(-1, keepdim=True) + 1e-5).sqrt())
        heads.append(torch.stack(outputs, dim=1))
    return torch.cat(heads, dim=-1) @ mixer.out.weight.mT


def features(feature_map: torch.nn.Module, x: Tensor, head: int) -> Tensor:
    if isinstance(feature_map, Hedgehog):
        y = torch.stack([row @ x_i for x_i in x.reshape(-1, x.shape[-1]) for row in feature_map.weight[head]])
        y = y.reshape(x.shape) + feature_map.bias[head, 0]
        exponentials = torch.cat([y.exp(), (-y).exp()], dim=-1)
        return exponentials / exponentials.sum(-1, keepdim=True)
    positive = x * (x > 0)
    return {
        "Elu": torch.nn.functional.elu(x) + 1,
        "Relu": positive + 0.001,
        "SquaredRelu": positive * positive + 0.001,
    }[type(feature_map).__name__]


def performer(mixer: Performer, x: Tensor) -> Tensor:
    """Step through the sums, scaled by the largest feature so far, or overall if bidirectional."""
    heads = []
    for q, k, v in per_head(mixer.projections, x, mixer.projections.kv_heads):
        logs = []
        for y in (q, k):
            y = y / q.shape[-1] ** 0.25
            count = len(mixer.directions)
            exponents = [(y * w).sum(-1) - (y * y).sum(-1) / 2 - math.log(count) / 2 for w in mixer.directions]
            logs.append(torch.stack(exponents, dim=-1))
        log_q, log_k = logs
        phi_q = (log_q - log_q.amax(-1, keepdim=True)).exp() + 1e-6
        t, largest, outputs = x.shape[1], log_k.amax(-1), []
        peaks = [largest[:, : j + 1].amax(1) if mixer.causal else largest.amax(1) for j in range(t)]
        phi_k = torch.stack([(log_k[:, j] - peaks[j][:, None]).exp() + 1e-6 for j in range(t)], dim=1)
        for now, seen in visible(t, mixer.causal):
            shrunk = torch.stack([(peaks[j] - peaks[now]).exp() for j in range(seen.stop)], dim=1)
            weights = (phi_q[:, now, None] * phi_k[:, seen]).sum(-1) * shrunk
            total = weights.sum(1, keepdim=True) + EPSILON
            outputs.append((weights[:, :, None] * v[:, seen]).sum(1) / total)
        heads.append(torch.stack(outputs, dim=1))
    return torch.cat(heads, dim=-1) @ mixer.out.weight.mT


def based(mixer: Based, x: Tensor) -> Tensor:
    """Weigh the values by the polynomial of each pair of tokens."""
    heads = []
    for q, k, v in per_head(mixer, x, mixer.heads):
        outputs = []
        for now, seen in visible(x.shape[1], mixer.causal):
            s = (q[:, now, None] * k[:, seen]).sum(-1) / math.sqrt(mixer.feature_width)
            weights = 1 + s + s**2 / 2
            outputs.append((weights[:, :, None] * v[:, seen]).sum(1) / weights.sum(1, keepdim=True))
        heads.append(torch.stack(outputs, dim=1))
    return torch.cat(heads, dim=-1) @ mixer.out.weight.mT


def retention(mixer: Retention, x: Tensor) -> Tensor:
    """Step through the recurrence of each head."""
    heads = []
    for head, (q, k, v) in enumerate(per_head(mixer, x, mixer.heads)):
        if mixer.rope is not None:
            q, k = rotated(q, mixer.rope), rotated(k, mixer.rope)
        state, outputs = x.new_zeros(x.shape[0], k.shape[-1], v.shape[-1]), []
        for t in range(x.shape[1]):
            state = (1 - 2.0 ** (-5 - head)) * state + k[:, t, :, None] * v[:, t, None, :]
            o = (q[:, t, :, None] * state).sum(1) / math.sqrt(k.shape[-1])
            o = o - o.mean(-1, keepdim=True) if mixer.norm == "layer" else o
            outputs.append(o / (o.square().mean(-1, keepdim=True) + 1e-5).sqrt())
        heads.append(torch.stack(outputs, dim=1))
    return (silu(x @ mixer.gate.weight.mT) * torch.cat(heads, dim=-1)) @ mixer.out.weight.mT


def per_head(projections: Any, x: Tensor, heads: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield queries, keys and values of one head after the other."""
    weights = [each.weight.chunk(heads) for each in (projections.query, projections.key, projections.value)]
    for own in zip(*weights, strict=True):
        yield tuple(x @ weight.mT for weight in own)


def visible(t: int, causal: bool) -> Iterator[tuple[int, slice]]:
    """Yield each position, and what it sees."""
    for now in range(t):
        yield now, slice(0, now + 1 if causal else t)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: Linear(width=64, feature_map="cosine"),
            "feature_map=cosine: allowed: elu, hedgehog, relu, squared_relu",
        ),
        (lambda: Linear(width=64, heads=5), "heads=5: must divide the width, 64"),
        (lambda: Performer(width=64, features=0), "features=0: must be a whole number of at least 1"),
        (lambda: Performer(width=64, heads=3), "heads=3: must divide the width, 64"),
        (lambda: Based(width=64, feature_width=0), "feature_width=0: must be a whole number of at least 1"),
        (lambda: Based(width=64, heads=3), "heads=3: must divide the width, 64"),
        (lambda: Retention(width=64, heads=3), "heads=3: must divide the width, 64"),
        (lambda: Retention(width=64, rope=0.0), "rope=0.0: must be a number above 0, or null: no positions"),
        (lambda: Retention(width=64, norm="group"), "norm=group: allowed: layer, rms"),
        (lambda: Retention(width=12), "rope=10000.0: needs an even head width, not 3, or null: no positions"),
    ],
)
def test_bad_values_are_refused_in_words(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build()


@pytest.mark.parametrize("feature_map", ["relu", "squared_relu"])
@pytest.mark.parametrize("normalise", [True, False], ids=["normalised", "rms"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_keys_without_features_leave_the_mean(feature_map: str, normalise: bool, causal: bool) -> None:
    mixer = Linear(width=WIDTH, feature_map=feature_map, normalise=normalise, causal=causal)
    with torch.no_grad():
        mixer.projections.query.weight.copy_(-torch.eye(WIDTH))
        mixer.projections.key.weight.copy_(-torch.eye(WIDTH))
    x = torch.rand(2, 90, WIDTH).requires_grad_()
    y = mixer(x)
    assert y.isfinite().all()
    if normalise:
        values = mixer.projections.value(x)
        counts = torch.arange(1, 91)[:, None]
        mean = values.cumsum(1) / counts if causal else values.mean(1, keepdim=True).expand_as(values)
        torch.testing.assert_close(y, mixer.out(mean), rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad(y.square().sum(), [x, *mixer.parameters()])
    assert all(each.isfinite().all() and each.abs().max() < 1e3 for each in gradients)


def test_hedgehog_starts_from_the_identity_with_maps_of_its_own() -> None:
    mixer = Linear(width=64, feature_map="hedgehog")
    for own in (mixer.query_features, mixer.key_features):
        assert isinstance(own, Hedgehog)
        assert torch.equal(own.weight, torch.eye(16).expand(4, 16, 16))
        assert torch.equal(own.bias, torch.zeros(4, 1, 16))
        assert (own.weight.takes_weight_decay, own.weight.takes_initialisation) == (True, False)  # type: ignore[attr-defined]
        assert (own.bias.takes_weight_decay, own.bias.takes_initialisation) == (False, False)  # type: ignore[attr-defined]
    x = torch.randn(2, 4, 5, 16)
    weights = own(x) @ own(x).mT
    assert own.features == own(x).shape[-1] == 32
    assert ((weights > 0) & (weights <= 1)).all()
    assert len({id(p) for p in mixer.parameters()}) == 8


def test_hedgehog_takes_inputs_of_any_size() -> None:
    mixer = Linear(width=64, feature_map="hedgehog")
    x = (1000 * torch.randn(2, 100, 64)).requires_grad_()
    y = mixer(x)
    assert y.isfinite().all()
    gradients = torch.autograd.grad(y.square().mean(), [x, *mixer.parameters()])
    assert all(each.isfinite().all() for each in gradients)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_performer_nears_softmax_attention(causal: bool) -> None:
    torch.manual_seed(0)
    full, x = Full(width=WIDTH, rope=None), torch.randn(2, 60, WIDTH)
    errors = []
    for features in (16, 256, 8192):
        mixer = Performer(width=WIDTH, features=features, causal=causal)
        mixer.load_state_dict({**full.state_dict(), "directions": mixer.directions})
        q, k, v = full.projections(x)
        o = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        expected = full.out(o.transpose(1, 2).flatten(2))
        errors.append(((mixer(x) - expected).norm() / expected.norm()).item())
    assert errors[0] > 1.5 * errors[1] > 3 * errors[2]
    assert errors[2] < 0.06


@pytest.mark.parametrize(("width", "features"), [(64, 48), (256, 272), (1024, 1424), (4, 16)])
def test_performer_draws_about_k_log_k_features(width: int, features: int) -> None:
    with torch.device("meta"):
        assert Performer(width=width).directions.shape == (features, width // 4)


@pytest.mark.parametrize("size", [30.0, 1000.0])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_performer_takes_inputs_of_any_size(size: float, causal: bool) -> None:
    torch.manual_seed(0)
    mixer = Performer(width=WIDTH, causal=causal)
    x = (size * torch.randn(2, 200, WIDTH)).requires_grad_()
    y = mixer(x)
    assert y.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.square().mean(), [x, *mixer.parameters()]))
    other = torch.cat([x[:, :100], 10 * x[:, 100:]], dim=1)
    assert torch.equal(mixer(other)[:, :100], y[:, :100]) == causal


def test_performer_saves_its_directions() -> None:
    mixer = Performer(width=WIDTH)
    assert "directions" in mixer.state_dict()
    assert "directions" not in dict(mixer.named_parameters())


def test_retention_forgets_more_slowly_from_head_to_head() -> None:
    mixer = Retention(width=WIDTH, rope=None)
    x = torch.zeros(1, 2, WIDTH)
    x[0, 0] = 1.0
    _, first = mixer.extend(x[:, :1], mixer.initial_state(1, x))
    _, second = mixer.extend(x[:, 1:], first)
    rates = torch.tensor([1 - 1 / 32, 1 - 1 / 64, 1 - 1 / 128, 1 - 1 / 256])
    torch.testing.assert_close(second.sums, first.sums * rates[:, None, None])
    assert second.position.tolist() == [[2]]


def test_retention_is_as_exact_on_long_sequences_as_on_short_ones() -> None:
    torch.manual_seed(0)
    mixer, x = Retention(width=8, heads=2), torch.randn(1, 32768, 8)
    with torch.no_grad():
        found, expected = mixer(x), mixer.double()(x.double())
    # Rotary angles of some 10,000 turns are exact to about 1e-3 in float32.
    assert (found - expected).norm() < 2e-3 * expected.norm()
