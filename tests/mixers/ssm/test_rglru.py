"""Griffin's recurrent block against its recurrence and transformers; bad values, initialisation."""

import math
import re
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridlab.mixers.ssm.rglru import Rglru
from tests.mixers.agree import WIDTH, agree
from tests.mixers.equations import convolved


def oracle(mixer: Rglru, x: Tensor) -> Tensor:
    """Step through the tokens; each head has its own matrix."""
    part, expanded = mixer.recurrence, mixer.out.weight.shape[1]
    gate = x @ mixer.in_projection.weight[:expanded].mT
    gate = 0.5 * gate * (1 + torch.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
    assert mixer.convolution.bias is not None
    u = x @ mixer.in_projection.weight[expanded:].mT
    u = convolved(u, mixer.convolution.weight) + mixer.convolution.bias
    heads, k = part.input_bias.shape
    forget, enter = [], []
    for head in range(heads):
        own = u[..., head * k : (head + 1) * k]
        forget.append(1 / (1 + torch.exp(-(own @ part.recurrence_weight[head] + part.recurrence_bias[head]))))
        enter.append(1 / (1 + torch.exp(-(own @ part.input_weight[head] + part.input_bias[head]))))
    a = torch.exp(-8 * torch.log1p(torch.exp(part.rate)) * torch.cat(forget, dim=-1))
    driven = torch.cat(enter, dim=-1) * u
    h = driven[:, 0]
    states = [h]
    for t in range(1, x.shape[1]):
        h = a[:, t] * h + torch.sqrt(1 - a[:, t] ** 2) * driven[:, t]
        states.append(h)
    return (torch.stack(states, dim=1) * gate) @ mixer.out.weight.mT


@pytest.mark.parametrize("t", [1, 2, 9, 70, 131])
@pytest.mark.parametrize(
    "settings",
    [{}, {"heads": 1, "conv_size": 1}, {"heads": 2, "expand": 0.5}, {"expand": 3.0, "conv_size": 7}],
    ids=str,
)
def test_mixer_is_its_recurrence(settings: dict[str, Any], t: int) -> None:
    torch.manual_seed(0)
    agree(Rglru(width=WIDTH, **settings), oracle, t)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 0}, "heads=0: must be a whole number of at least 1"),
        ({"expand": 0.0}, "expand=0.0: must be a number above 0"),
        ({"expand": -1.5}, "expand=-1.5: must be a number above 0"),
        ({"expand": math.nan}, "expand=nan: must be a number above 0"),
    ],
    ids=str,
)
def test_bad_values_are_refused_in_words(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Rglru(width=64, **settings)


@pytest.mark.parametrize(("width", "heads", "expanded"), [(64, 4, 96), (256, 4, 352), (1024, 4, 1376), (16, 8, 64)])
def test_blocks_have_a_multiple_of_8_channels(width: int, heads: int, expanded: int) -> None:
    with torch.device("meta"):
        mixer = Rglru(width=width, heads=heads)
    assert mixer.out.in_features == expanded
    assert mixer.recurrence.input_weight.shape == (heads, expanded // heads, expanded // heads)


def test_decays_start_uniform_in_their_range() -> None:
    torch.manual_seed(0)
    strongest = torch.exp(-8 * torch.nn.functional.softplus(Rglru(width=2048).recurrence.rate.detach().double()))
    assert 0.9 <= strongest.min() < 0.901
    assert 0.998 < strongest.max() <= 0.999 + 1e-6
    assert strongest.mean().item() == pytest.approx(0.9495, abs=2e-3)
    assert strongest.std().item() == pytest.approx(0.099 / math.sqrt(12), rel=0.05)


def test_gates_start_as_the_paper_prescribes() -> None:
    torch.manual_seed(0)
    part = Rglru(width=256).recurrence
    for weight, bias in ((part.recurrence_weight, part.recurrence_bias), (part.input_weight, part.input_bias)):
        assert weight.std().item() == pytest.approx(88**-0.5, rel=0.05)
        assert not bias.any()


def test_tags_what_takes_no_decay_and_keeps_its_initialisation() -> None:
    tagged = {
        name: (parameter.takes_weight_decay, parameter.takes_initialisation)
        for name, parameter in Rglru(width=64).named_parameters()
        if hasattr(parameter, "takes_weight_decay")
    }
    assert tagged == {
        "recurrence.rate": (False, False),
        "recurrence.recurrence_weight": (True, False),
        "recurrence.input_weight": (True, False),
        "recurrence.recurrence_bias": (False, False),
        "recurrence.input_bias": (False, False),
        "convolution.weight": (True, False),
        "convolution.bias": (False, False),
    }


@torch.no_grad()
def test_state_knows_whether_a_sequence_has_begun() -> None:
    """One sequence of a batch is before its first token, the other after."""
    torch.manual_seed(0)
    mixer, x = Rglru(width=64).double(), torch.randn(1, 9, 64, dtype=torch.float64)
    fresh = mixer.initial_state(1, x)
    _, later = mixer.extend(x[:, :4], fresh)
    both = type(later)(*(torch.cat(parts) for parts in zip(fresh, later, strict=True)))
    y, state = mixer.extend(x[:, 4:].repeat(2, 1, 1), both)
    torch.testing.assert_close(y[0], mixer(x[:, 4:])[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(y[1], mixer(x)[0, 4:], rtol=1e-9, atol=1e-9)
    assert not fresh.begun.any()
    assert state.begun.all()


@pytest.mark.parametrize("forgetting", [-1e4, -40.0, 1e4])
def test_gradients_have_a_bound_as_decays_near_one(forgetting: float) -> None:
    torch.manual_seed(0)
    mixer, x = Rglru(width=64), torch.randn(1, 300, 64, requires_grad=True)
    with torch.no_grad():
        mixer.recurrence.recurrence_bias.fill_(forgetting)
    y = mixer(x)
    gradients = torch.autograd.grad(y.square().mean(), [x, *mixer.parameters()])
    assert all(each.isfinite().all() and each.abs().max() < 1e3 for each in (y, *gradients))


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers comes with hybridlab[test]")
def test_block_is_that_of_transformers() -> None:
    from transformers.models.recurrent_gemma.configuration_recurrent_gemma import RecurrentGemmaConfig
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRecurrentBlock

    torch.manual_seed(0)
    config = RecurrentGemmaConfig(hidden_size=64, lru_width=96, num_attention_heads=4, num_hidden_layers=3)
    theirs, ours = RecurrentGemmaRecurrentBlock(config, layer_idx=0), Rglru(width=64)
    part, unit = ours.recurrence, theirs.rg_lru
    assert ours.convolution.bias is not None
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for linear in (theirs.linear_x, theirs.linear_y, theirs.linear_out):
            linear.bias.zero_()  # ours have none
        for mine, other in (
            (ours.in_projection.weight[:96], theirs.linear_y.weight),
            (ours.in_projection.weight[96:], theirs.linear_x.weight),
            (ours.convolution.weight, theirs.conv_1d.weight[:, 0]),
            (ours.convolution.bias, theirs.conv_1d.bias),
            (part.rate, unit.recurrent_param),
            (part.recurrence_weight, unit.recurrent_gate_weight),
            (part.recurrence_bias, unit.recurrent_gate_bias),
            (part.input_weight, unit.input_gate_weight),
            (part.input_bias, unit.input_gate_bias),
            (ours.out.weight, theirs.linear_out.weight),
        ):
            other.copy_(mine)
    x = torch.randn(2, 100, 64, requires_grad=True)
    expected, _ = theirs(x, torch.arange(100)[None], attention_mask=None, use_cache=False)
    y = ours(x)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    into = torch.randn_like(y)
    torch.testing.assert_close(
        torch.autograd.grad(y, x, into), torch.autograd.grad(expected, x, into), rtol=1e-4, atol=1e-4
    )
