"""Griffin's recurrent block: bad values, initialisation, bounded gradients."""

import math
import re
from typing import Any

import pytest
import torch

from hybridlab.mixers.ssm.rglru import Rglru


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
