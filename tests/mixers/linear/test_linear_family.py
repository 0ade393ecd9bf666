"""Linear attention and its feature maps, Performer and retention: bad values, extreme inputs."""

import re
from collections.abc import Callable

import pytest
import torch

from hybridlab.mixers.attention.full import Full
from hybridlab.mixers.linear.based import Based
from hybridlab.mixers.linear.linear import Linear
from hybridlab.mixers.linear.performer import Performer
from hybridlab.mixers.linear.retention import Retention
from hybridlab.mixers.parts.feature_maps import Hedgehog

WIDTH = 32


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
