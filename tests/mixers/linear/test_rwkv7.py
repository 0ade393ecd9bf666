"""RWKV-7's time mixing: bad values, initialisation, strong decays."""

import re
from typing import Any

import pytest
import torch

from hybridlab.config import mixer_files
from hybridlab.mixers.linear.rwkv7 import RWKV7, LowRank
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand


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
        ({"layer_index": 2, "layer_count": 2}, "layer_index=2: must be a whole number from 0 to 1"),
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


@pytest.mark.parametrize(("index", "count"), [(0, 1), (0, 12), (5, 12), (11, 12)])
def test_starts_from_the_values_of_the_authors_code(index: int, count: int) -> None:
    width, head = 64, 16
    mixer = RWKV7(width=width, heads=width // head, layer_index=index, layer_count=count)
    deep, left = (index / (count - 1) if count > 1 else 0.0), 1 - index / count
    for channel in range(0, width, 7):
        share, linear = channel / width, channel / (width - 1) - 0.5
        zigzag = (channel % head - (head - 1) / 2) / ((head - 1) / 2)
        zigzag *= abs(zigzag)
        assert mixer.shift[:, channel].tolist() == pytest.approx(
            [1 - share ** (power * left) for power in (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)], abs=1e-6
        )
        expected = {
            "decay_bias": -6 + 6 * (channel / (width - 1)) ** (1 + deep**0.3) + 0.5 + zigzag * 2.5,
            "rate_bias": -0.19 + zigzag * 0.3 + linear * 0.4,
            "removal_scale": 0.71 - linear * 0.1,
            "rate_share": 1.02,
            "bonus": -0.04,
            "norm": ((1 + index) / count) ** 0.7,
            "norm_bias": 0.0,
        }
        found = {name: getattr(mixer, name)[channel].item() for name in expected}
        assert found == pytest.approx(expected, abs=1e-5)


def test_linear_maps_start_orthogonal_the_output_at_zero_and_the_stack_keeps_them() -> None:
    torch.manual_seed(0)
    groups = {"all": {"mixer": "rwkv7", "layers": 2}}
    stack = Stack(expand({"width": 64, "groups": groups}, {}, mixer_files()), vocabulary=11)
    for index, block in enumerate(stack.layers):
        mixer: RWKV7 = block.mixer  # type: ignore[assignment]
        identity = torch.eye(64)
        for linear, gain in ((mixer.receptance, 1.0), (mixer.key, 0.1), (mixer.value, 1.0)):
            torch.testing.assert_close(linear.weight.mT @ linear.weight, gain**2 * identity, rtol=0, atol=1e-5)
        assert mixer.out.weight.abs().max() == 0
        assert mixer.norm[0].item() == pytest.approx(((1 + index) / 2) ** 0.7)
    x = torch.randn(1, 3, 64)
    assert mixer.decay(x).abs().max() == 0
    assert mixer.rate(x).abs().max() == 0


@pytest.mark.parametrize("width", [1, 2, 6])
def test_narrow_stacks_start_from_finite_values(width: int) -> None:
    for heads in {1, width}:
        mixer = RWKV7(width=width, heads=heads)
        assert all(parameter.isfinite().all() for parameter in mixer.parameters())


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
    assert tagged == dict.fromkeys(vectors, (False, False)) | dict.fromkeys(maps, (False, False)) | dict.fromkeys(
        (f"{name}.weight" for name in ("receptance", "key", "value", "out")), (True, False)
    )


def test_the_bias_of_the_decay_learns_at_twice_the_rate() -> None:
    factors = {name: getattr(each, "lr_factor", 1.0) for name, each in RWKV7(width=64).named_parameters()}
    assert factors.pop("decay_bias") == 2.0
    assert set(factors.values()) == {1.0}
