"""Leaks in the run's own precision only, and rounding, which is none."""

import pytest
import torch

from hybridlab.errors import ConfigError
from hybridlab.evaluation.leak import check_plan
from tests.evaluation.leak.planted import Honest, both, leak_of
from tests.evaluation.leak.stacks import stack_of


def _mean(x):
    return x.mean(1, keepdim=True).expand_as(x)


class InBfloat16(Honest):
    """Only what arrives in bfloat16, as a projection under autocast puts it out."""

    def leak(self, x):
        y = self.project(x)
        return _mean(y) * (y.dtype == torch.bfloat16)


class UnderAutocast(Honest):
    def leak(self, x):
        return 0.1 * _mean(x) * torch.is_autocast_enabled("cpu")


class InFloat32(Honest):
    def leak(self, x):
        return 0.01 * _mean(x) * (x.dtype == torch.float32)


class InHalf(Honest):
    def leak(self, x):
        return _mean(x) * (x.dtype == torch.bfloat16)


class BatchMatesInFloat32(Honest):
    def leak(self, x):
        return (x - x[:1]) * (x.dtype == torch.float32)


class CausalFourier(Honest):
    """A padded convolution by Fourier transforms in float32, whatever the dtype."""

    def forward(self, x):
        return super().forward(x) + self._filtered(x)

    def _filtered(self, x):
        t = x.shape[1]
        taps = torch.exp(-0.1 * torch.arange(t, dtype=torch.float32))[:, None]
        spectrum = torch.fft.rfft(x.float(), n=2 * t, dim=1) * torch.fft.rfft(taps, n=2 * t, dim=0)
        return torch.fft.irfft(spectrum, n=2 * t, dim=1)[:, :t].to(x.dtype)

    def initial_state(self, batch, like):
        return (like.new_zeros(batch, 0, self.width),)

    def extend(self, x, state):
        x = torch.cat([state[0], x], dim=1)
        return self(x)[:, state[0].shape[1] :], (x,)


class CausalFourierInBfloat16(CausalFourier):
    """The same, rounded to bfloat16 on the way."""

    def _filtered(self, x):
        return super()._filtered(x.bfloat16()).to(x.dtype)


class ChoiceAfterRounding(CausalFourier):
    """A choice between two channels, which rounding flips where they are close."""

    def _filtered(self, x):
        y = super()._filtered(x).bfloat16()
        return torch.where(y[..., :1] > y[..., 1:2], 1.0, -1.0).to(x.dtype).expand_as(x)


class LeakBesideFourier(CausalFourier):
    """A leak a thousand times larger than the rounding beside it."""

    def _filtered(self, x):
        return super()._filtered(x) + 1e-3 * _mean(x)


@pytest.mark.parametrize(
    ("planted", "precision"),
    [
        (InBfloat16, "bf16-mixed"),
        (UnderAutocast, "bf16-mixed"),
        (InFloat32, "32-true"),
        (InHalf, "bf16-true"),
        (BatchMatesInFloat32, "32-true"),
    ],
)
@pytest.mark.parametrize("form", [0, 1], ids=["decodes", "forward alone"])
def test_a_leak_of_the_runs_own_precision_is_found(planted, precision, form, tmp_path, monkeypatch):
    mixer = both([planted])[form]
    monkeypatch.setattr(f"{__name__}.{mixer.__name__}", mixer, raising=False)
    mixer.__module__ = __name__
    plan, stack = stack_of(tmp_path, mixer)
    with pytest.raises(ConfigError, match=r"(sees the future|other sequences of its batch).*on the CPU"):
        check_plan(plan, stack, 40, precision=precision)


@pytest.mark.parametrize("honest", [CausalFourier, CausalFourierInBfloat16, ChoiceAfterRounding])
def test_rounding_is_no_leak(honest):
    assert leak_of(honest()) is None


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_rounding_is_no_leak_in_the_runs_own_precision(precision, tmp_path):
    plan, stack = stack_of(tmp_path, CausalFourier, Honest, ChoiceAfterRounding)
    assert check_plan(plan, stack, 40, precision=precision)[-1].startswith("whole stack: no leak")


def test_a_leak_above_the_rounding_is_found():
    assert leak_of(LeakBesideFourier()) is not None
