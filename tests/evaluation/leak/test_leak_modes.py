"""Leaks in one mode only: training or evaluation, with or without gradients."""

import pytest
import torch
from torch import nn

from hybridlab.evaluation.leak import Kind
from tests.evaluation.leak.planted import Honest, both, leak_of


def _mean(x):
    return x.mean(1, keepdim=True).expand_as(x)


class InTraining(Honest):
    def leak(self, x):
        return _mean(x) * self.training


class InEvaluation(Honest):
    def leak(self, x):
        return _mean(x) * (not self.training)


class WithGradients(Honest):
    def leak(self, x):
        return _mean(x) * torch.is_grad_enabled()


class WithoutGradients(Honest):
    def leak(self, x):
        return _mean(x) * (not torch.is_grad_enabled())


class InInferenceMode(Honest):
    def leak(self, x):
        return _mean(x) * torch.is_inference_mode_enabled()


class WhereInputsNeedGradients(Honest):
    def leak(self, x):
        return _mean(x) * x.requires_grad


class InEvaluationWithGradients(Honest):
    def leak(self, x):
        return _mean(x) * (torch.is_grad_enabled() and not self.training)


class SinglePositionInTraining(Honest):
    def leak(self, x):
        y = torch.zeros_like(x)
        if self.training:
            y[:, 31:32] = x[:, 32:33]
        return y


class UnderDropout(Honest):
    """Dropout makes training differ from evaluation by design; the leak beside it does not hide."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.2)

    def leak(self, x):
        return self.dropout(x) - x + 0.1 * _mean(x) * self.training


class HonestDropout(Honest):
    def leak(self, x):
        return nn.functional.dropout(x, 0.2, self.training) - x


class HonestNoise(Honest):
    """Random numbers of its own in training."""

    def leak(self, x):
        return 0.1 * torch.rand_like(x) * self.training


PLANTED = [
    InTraining,
    InEvaluation,
    WithGradients,
    WithoutGradients,
    InInferenceMode,
    WhereInputsNeedGradients,
    InEvaluationWithGradients,
    SinglePositionInTraining,
    UnderDropout,
]


@pytest.mark.parametrize("planted", both(PLANTED))
def test_a_leak_of_one_mode_is_found(planted):
    leak = leak_of(planted())
    assert leak is not None
    assert leak.kind in (Kind.FUTURE, Kind.LENGTH)


class RandomEverywhere(Honest):
    """Random numbers in evaluation too: two calls of one shape draw the same."""

    def leak(self, x):
        return 0.1 * torch.rand_like(x)


class RandomAndLeaks(Honest):
    def leak(self, x):
        return 0.1 * torch.rand_like(x) + _mean(x)


def test_a_leak_beside_random_numbers_is_found():
    leak = leak_of(RandomAndLeaks())
    assert leak is not None
    assert leak.kind is Kind.FUTURE


@pytest.mark.parametrize("honest", both([HonestDropout, HonestNoise, RandomEverywhere]))
def test_random_numbers_are_no_leak(honest):
    assert leak_of(honest()) is None
