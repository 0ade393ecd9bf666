"""Leaks of inputs of one size only."""

import pytest
import torch

from tests.evaluation.leak.planted import Honest, both, leak_of


def _mean(x):
    return x.mean(1, keepdim=True).expand_as(x)


class LargeInputs(Honest):
    def leak(self, x):
        return _mean(x) * (x.abs().amax() > 50)


class SmallInputs(Honest):
    def leak(self, x):
        return x.flip(1) * (x.abs().amax() < 0.1)


class NormedInputs(Honest):
    """Only tokens of root mean square one, which is what a pre-norm layer gets."""

    def leak(self, x):
        size = x.square().mean(-1)
        return _mean(x) * torch.isclose(size, torch.ones_like(size)).all()


class CentredInputs(Honest):
    def leak(self, x):
        return x.flip(1) * (x.mean().abs() < 1e-6)


class ShiftedInputs(Honest):
    def leak(self, x):
        return _mean(x) * (x.mean() > 1)


@pytest.mark.parametrize("planted", both([LargeInputs, SmallInputs, NormedInputs, CentredInputs, ShiftedInputs]))
def test_a_leak_of_inputs_of_one_size_is_found(planted):
    assert leak_of(planted()) is not None
