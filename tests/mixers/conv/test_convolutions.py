"""The convolutions against direct sums over taps, from their own weights."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridlab.config import mixer_files
from hybridlab.mixers.base import Mixer
from hybridlab.mixers.conv.h3 import H3
from hybridlab.mixers.conv.hyena import Hyena
from hybridlab.mixers.conv.long_conv import LongConv
from hybridlab.mixers.conv.short_conv import ShortConv
from hybridlab.mixers.parts.implicit_filter import ImplicitFilter
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from tests.mixers.agree import WIDTH, agree
from tests.mixers.oracles import convolved, silu


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def summed(x: Tensor, taps: Tensor, ahead: Tensor | None = None) -> Tensor:
    """Return Σ_j taps_j x_{t-j} + Σ_j ahead_j x_{t+1+j}, one token at a time."""
    t = x.shape[1]
    outputs = []
    for i in range(t):
        y = sum((taps[:, j] * x[:, i - j] for j in range(min(taps.shape[1], i + 1))), torch.zeros_like(x[:, 0]))
        if ahead is not None:
            y = y + sum(ahead[:, j] * x[:, i + 1 + j] for j in range(min(ahead.shape[1], t - i - 1)))
        outputs.append(y)
    return torch.stack(outputs, dim=1)


def from_both_sides(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve with taps of which the last ones stand ahead of the token."""
    ahead = weight.shape[1] // 2
    taps = weight.flip(-1)  # from the furthest ahead to the furthest back
    return summed(x, taps[:, ahead:], taps[:, :ahead].flip(-1) if ahead else None)


def short_conv(mixer: ShortConv, x: Tensor) -> Tensor:
    u, weight = x @ mixer.in_projection.weight.mT, mixer.convolution.weight
    y = convolved(u, weight) if mixer.causal else from_both_sides(u, weight)
    assert mixer.convolution.bias is not None
    return silu(y + mixer.convolution.bias) @ mixer.out.weight.mT


@pytest.mark.parametrize("t", [1, 3, 20])
@pytest.mark.parametrize("conv_size", [1, 2, 3, 4])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
def test_short_conv(conv_size: int, t: int, causal: bool) -> None:
    agree(ShortConv(width=WIDTH, conv_size=conv_size, causal=causal), short_conv, t)


def long_conv(mixer: LongConv, x: Tensor) -> Tensor:
    u = x @ mixer.in_projection.weight.mT
    return gelu(summed(u, mixer.filter, mixer.filter_ahead) + mixer.skip * u) @ mixer.out.weight.mT


@pytest.mark.parametrize("t", [1, 7, 40])
@pytest.mark.parametrize("conv_size", [1, 8, 64])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
def test_long_conv(conv_size: int, t: int, causal: bool) -> None:
    agree(LongConv(width=WIDTH, conv_size=conv_size, causal=causal), long_conv, t)


def taps(made: ImplicitFilter, length: int) -> Tensor:
    """Compute the filter one distance at a time."""
    found = []
    for distance in range(length):
        share = distance / (made.horizon - 1)
        bands = torch.linspace(1e-4, made.bands - 1, made.bands, dtype=torch.float64)
        turns = torch.exp(-2j * math.pi * distance / made.horizon * bands)
        x = torch.cat([torch.tensor([share], dtype=torch.float64), turns.real, turns.imag])
        for layer in made.layers:
            x = torch.sin(made.frequency * (layer.weight @ x + layer.bias))
        rates = torch.linspace(math.log(100) / 1.5, math.log(100) / 0.3, made.last.out_features, dtype=torch.float64)
        found.append((made.last.weight @ x) * torch.exp(-share * rates))
    return torch.stack(found, dim=-1)


def hyena(mixer: Hyena, x: Tensor) -> Tensor:
    projected, weight = x @ mixer.in_projection.weight.mT, mixer.convolution.weight
    projected = convolved(projected, weight) if mixer.causal else from_both_sides(projected, weight)
    assert mixer.convolution.bias is not None
    gate, before, value = (projected + mixer.convolution.bias).split(WIDTH, dim=-1)
    u, t = before * value, x.shape[1]
    ahead = None if mixer.filter_ahead is None else taps(mixer.filter_ahead, t)
    return (gate * (summed(u, taps(mixer.filter, t), ahead) + mixer.skip * u)) @ mixer.out.weight.mT


@pytest.mark.parametrize("t", [1, 7, 40])
@pytest.mark.parametrize(
    # Three layers of sines multiply rounding errors by their frequency, thrice.
    "settings",
    [{"sine_frequency": 2.0}, {"conv_size": 1, "hidden": 8, "bands": 2, "horizon": 16, "sine_layers": 1}],
    ids=str,
)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
def test_hyena(settings: dict[str, Any], t: int, causal: bool) -> None:
    agree(Hyena(width=WIDTH, causal=causal, **settings), hyena, t)


def h3(mixer: H3, x: Tensor) -> Tensor:
    """Step through each channel's modes as complex numbers."""
    q, k, v = (x @ mixer.in_projection.weight[i * WIDTH : (i + 1) * WIDTH].mT for i in range(3))
    u = convolved(k, mixer.convolution.weight) * v
    step = torch.exp(mixer.log_step.anchor + mixer.log_step.offset)[:, None]
    a = torch.complex(-mixer.log_rate.exp(), mixer.frequency.anchor + mixer.frequency.offset)
    c = torch.complex(*mixer.readout.chunk(2, dim=-1))
    if mixer.discretisation == "zoh":
        kept, taken = torch.exp(step * a), (torch.exp(step * a) - 1) / a
    else:
        kept, taken = (1 + step * a / 2) / (1 - step * a / 2), step / (1 - step * a / 2)
    h = torch.zeros(x.shape[0], WIDTH, a.shape[1], dtype=torch.complex128)
    outputs = []
    for t in range(x.shape[1]):
        h = kept * h + taken * u[:, t, :, None]
        outputs.append(2 * (c * h).sum(-1).real + mixer.skip * u[:, t])
    return (q * torch.stack(outputs, dim=1)) @ mixer.out.weight.mT


@pytest.mark.parametrize("t", [1, 7, 40])
@pytest.mark.parametrize("settings", [{}, {"discretisation": "zoh"}, {"conv_size": 1, "state": 2}], ids=str)
def test_h3(settings: dict[str, Any], t: int) -> None:
    agree(H3(width=WIDTH, **settings), h3, t)


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
