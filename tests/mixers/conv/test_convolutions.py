"""The convolutions: their filters, initialisation and bad values."""

import re
from typing import Any

import pytest
import torch

from hybridlab.config import mixer_files
from hybridlab.mixers.base import Mixer
from hybridlab.mixers.conv.h3 import H3
from hybridlab.mixers.conv.hyena import Hyena
from hybridlab.mixers.conv.long_conv import LongConv
from hybridlab.mixers.conv.short_conv import ShortConv
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand

WIDTH = 32


def test_a_filter_does_not_depend_on_how_much_of_it_is_asked_for() -> None:
    made = Hyena(width=8, hidden=16, bands=4, horizon=32).filter.double()
    like = torch.zeros(1, dtype=torch.float64)
    torch.testing.assert_close(made(100, like)[:, :10], made(10, like))


@pytest.mark.parametrize("width", [16, 64, 300])
def test_hyena_starts_from_filters_as_large_as_the_authors(width: int) -> None:
    """Their code's filters of 1,024 taps have norms of 3.04 to 3.3, by the frequency features."""
    torch.manual_seed(0)
    groups = {"all": {"mixer": "hyena", "layers": 2}}
    stack = Stack(expand({"width": width, "groups": groups}, {}, mixer_files()), vocabulary=11)
    mixers: list[Hyena] = [block.mixer for block in stack.layers]  # type: ignore[misc]
    norms = torch.cat([mixer.filter(1024, torch.zeros(1)).norm(dim=-1) for mixer in mixers])
    assert norms.mean().item() == pytest.approx(3.15, abs=0.25)
    assert all(len(mixer.filter.layers) == 3 for mixer in mixers)
    assert all(torch.equal(mixer.filter.frequency, torch.full((64,), 14.0)) for mixer in mixers)


def test_filters_keep_their_precision_in_a_narrower_stack() -> None:
    torch.manual_seed(0)
    mixer, like = Hyena(width=16), torch.zeros(1)
    expected = mixer.filter(100, like)
    assert {each.dtype for each in mixer.to(torch.bfloat16).filter.parameters()} == {torch.float32}
    assert mixer.out.weight.dtype == torch.bfloat16
    assert torch.equal(mixer.filter(100, like.bfloat16()), expected)
    assert {each.dtype for each in mixer.double().filter.parameters()} == {torch.float64}
    assert mixer.to("meta").filter.last.weight.is_meta


def test_the_skip_and_the_bias_of_hyena_start_random() -> None:
    torch.manual_seed(0)
    mixer = Hyena(width=4000)
    assert mixer.skip.mean().item() == pytest.approx(0, abs=0.05)
    assert mixer.skip.std().item() == pytest.approx(1, abs=0.05)
    assert mixer.convolution.bias is not None
    assert mixer.convolution.bias.abs().max().item() == pytest.approx(3**-0.5, abs=1e-3)
    assert mixer.convolution.bias.std().item() == pytest.approx(1 / 3, abs=0.01)


def test_the_skips_of_h3_start_standard_normal() -> None:
    torch.manual_seed(0)
    mixer = H3(width=4000, state=2)
    own, before = mixer.convolution.weight.detach()[:, -1], mixer.convolution.weight.detach()[:, :-1]
    for drawn in (mixer.skip.detach(), own):
        assert drawn.mean().item() == pytest.approx(0, abs=0.05)
        assert drawn.std().item() == pytest.approx(1, abs=0.05)
    assert before.abs().max().item() <= 1 / 8


def test_long_filters_start_with_norm_one_and_different_reaches() -> None:
    torch.manual_seed(0)
    energy = LongConv(width=64, conv_size=256).filter.detach().square()
    assert energy.sum(-1).mean().item() == pytest.approx(1, abs=0.1)
    centre = (energy * torch.arange(256)).sum(-1) / energy.sum(-1)
    assert centre[:8].mean() < 6
    assert centre[-8:].mean() > 40


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (ShortConv, {"conv_size": 0}, "conv_size=0: must be a whole number of at least 1"),
        (Hyena, {"horizon": 0}, "horizon=0: must be a whole number of at least 1"),
        (Hyena, {"sine_frequency": 0.0}, "sine_frequency=0.0: must be a number above 0"),
        (Hyena, {"sine_layers": 0}, "sine_layers=0: must be a whole number of at least 1"),
        (H3, {"state": 7}, "state=7: must be even: real and imaginary parts"),
        (H3, {"dt_min": 0.0}, "dt_min=0.0: must be a number above 0"),
        (H3, {"discretisation": "zho"}, "discretisation=zho: did you mean `zoh`?"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_values_are_refused_in_words(cls: type[Mixer], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cls(width=WIDTH, **settings)
