"""S4D: bad values and initialisation."""

import math
import re
from typing import Any

import pytest
import torch

from hybridlab.mixers.ssm.s4d import S4D


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"state": 0}, "state=0: must be a whole number of at least 1"),
        ({"state": 7}, "state=7: must be even: real and imaginary parts"),
        ({"init": "hippo"}, "init=hippo: allowed: inv, legs, lin"),
        ({"dt_min": 0.0}, "dt_min=0.0: must be a number above 0"),
        ({"dt_min": 0.2}, "dt_max=0.1: must be a number of at least 0.2"),
    ],
    ids=str,
)
def test_bad_values_are_refused_in_words(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        S4D(width=64, **settings)


def test_steps_and_rates_start_in_their_ranges() -> None:
    torch.manual_seed(0)
    mixer = S4D(width=1000)
    step = mixer.log_step(torch.float64).detach().exp()
    assert 1e-3 * 0.999 < step.min() < 1.1e-3
    assert 0.09 < step.max() < 1e-1 * 1.001
    assert step.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.15)
    torch.testing.assert_close(mixer.log_rate.detach().exp(), torch.full((1000, 32), 0.5))
    assert mixer.readout.detach().square().sum(-1).mean().item() == pytest.approx(32, rel=0.02)


def test_frequencies_start_by_the_rule() -> None:
    starts = {
        init: S4D(width=3, state=64, init=init).frequency(torch.float32).detach() for init in ("lin", "inv", "legs")
    }
    assert all(torch.equal(each[0], each[2]) for each in starts.values())
    torch.testing.assert_close(starts["lin"][0], math.pi * torch.arange(32))
    expected = torch.tensor([64 / math.pi * (64 / (2 * n + 1) - 1) for n in range(32)])
    torch.testing.assert_close(starts["inv"][0], expected)
    # The formula approximates the large exact eigenvalues, which come in the opposite order.
    exact = starts["legs"][0].flip(0)
    torch.testing.assert_close(exact[:5], expected[:5], rtol=0.15, atol=0)


def test_tags_say_what_takes_no_decay_and_keeps_its_initialisation() -> None:
    tagged = {
        name: (parameter.takes_weight_decay, parameter.takes_initialisation)
        for name, parameter in S4D(width=64, causal=False).named_parameters()
        if hasattr(parameter, "takes_weight_decay")
    }
    assert tagged == {
        "log_step.offset": (False, False),
        "log_rate": (False, False),
        "frequency.offset": (False, False),
        "readout": (True, False),
        "readout_ahead": (True, False),
        "skip": (False, False),
    }


def test_only_the_bidirectional_form_has_a_kernel_ahead() -> None:
    assert "readout_ahead" not in dict(S4D(width=8).named_parameters())
    assert "readout_ahead" in dict(S4D(width=8, causal=False).named_parameters())
