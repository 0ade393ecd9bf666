"""S4: bad values and initialisation."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridlab.mixers.ssm.s4 import S4
from hybridlab.ops.ssm.hippo import legs


def complex_of(halves: Tensor) -> Tensor:
    half = halves.shape[1] // 2
    return halves[:, :half] + 1j * halves[:, half:]


def with_conjugates(half: Tensor) -> Tensor:
    return torch.cat([half, half.conj()], dim=-1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"state": 0}, "state=0: must be a whole number of at least 1"),
        ({"state": 7}, "state=7: must be even: real and imaginary parts"),
        ({"dt_min": -1.0}, "dt_min=-1.0: must be a number above 0"),
        ({"dt_max": 0.0005}, "dt_max=0.0005: must be a number of at least 0.001"),
    ],
    ids=str,
)
def test_bad_values_are_refused_in_words(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        S4(width=64, **settings)


def test_every_channel_starts_from_hippo() -> None:
    """B* (s - A)⁻¹ B, which no change of basis changes, is that of the dense HiPPO-LegS."""
    mixer, dtype = S4(width=3, state=12), torch.float64
    diagonal = torch.complex(-mixer.log_rate.detach().to(dtype).exp(), mixer.frequency(dtype).detach())
    p, b = (with_conjugates(complex_of(each.detach().to(dtype))) for each in (mixer.low_rank(dtype), mixer.drive))
    a = torch.diag_embed(with_conjugates(diagonal)) - p[:, :, None] * p.conj()[:, None, :]
    matrix, drive = (each.to(a.dtype) for each in legs(12))
    identity = torch.eye(12, dtype=a.dtype)
    for s in (0.5, 3.0 + 2.0j, 20.0j):
        found = (b.conj() * torch.linalg.solve(s * identity - a, b)).sum(-1)
        expected = drive @ torch.linalg.solve(s * identity - matrix, drive)
        # The parameters are float32 numbers.
        torch.testing.assert_close(found, expected.expand(3), rtol=1e-4, atol=1e-4)


def test_steps_and_readouts_start_in_their_ranges() -> None:
    torch.manual_seed(0)
    mixer = S4(width=1000, state=8)
    step = mixer.log_step(torch.float64).detach().exp()
    assert 1e-3 * 0.999 < step.min() < 1.1e-3
    assert 0.09 < step.max() < 1e-1 * 1.001
    assert step.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.15)
    assert mixer.readout.detach().square().sum(-1).mean().item() == pytest.approx(4, rel=0.05)


def test_tags_say_what_takes_no_decay_and_keeps_its_initialisation() -> None:
    tagged = {
        name: (parameter.takes_weight_decay, parameter.takes_initialisation)
        for name, parameter in S4(width=64, causal=False).named_parameters()
        if hasattr(parameter, "takes_weight_decay")
    }
    assert tagged == {
        "log_step.offset": (False, False),
        "log_rate": (False, False),
        "frequency.offset": (False, False),
        "low_rank.offset": (False, False),
        "drive": (False, False),
        "readout": (True, False),
        "readout_ahead": (True, False),
        "skip": (False, False),
    }


def test_only_the_bidirectional_form_has_a_kernel_ahead() -> None:
    assert "readout_ahead" not in dict(S4(width=8).named_parameters())
    assert "readout_ahead" in dict(S4(width=8, causal=False).named_parameters())
