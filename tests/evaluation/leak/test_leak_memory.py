"""Outputs that depend on what an earlier call was given."""

import pytest
import torch
from torch import nn

from hybridlab.evaluation.leak import Kind
from tests.evaluation.leak.planted import Honest, both, leak_of


class Remembers(Honest):
    """The mean of the sequence before; with one sequence twice, as evaluation reads it, its own."""

    def __init__(self):
        super().__init__()
        self.seen = None

    def leak(self, x):
        earlier, self.seen = self.seen, x.mean((0, 1), keepdim=True)
        return torch.zeros_like(x) if earlier is None else earlier.expand_as(x)


class RemembersInTraining(Remembers):
    def leak(self, x):
        return super().leak(x) if self.training else torch.zeros_like(x)


class RemembersInABuffer(Honest):
    """A buffer of the past calls, in evaluation too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(self.width))

    def leak(self, x):
        y = self.seen.expand_as(x)
        self.seen = x.detach().mean((0, 1))
        return y


class Normalised(Honest):
    """Spectral normalisation: each call in training changes buffers, by the weights alone."""

    def __init__(self):
        super().__init__()
        self.project = nn.utils.parametrizations.spectral_norm(self.project)


class MovingAverage(Honest):
    """Centroids that follow the batches of training, and stay in evaluation."""

    def __init__(self):
        super().__init__()
        self.register_buffer("centroid", torch.zeros(self.width))

    def leak(self, x):
        y = self.centroid.clone()
        if self.training:
            self.centroid.lerp_(x.detach().mean((0, 1)), 0.1)
        return y.expand_as(x) * self.training


@pytest.mark.parametrize("planted", both([Remembers, RemembersInTraining, RemembersInABuffer]))
def test_an_output_that_remembers_is_found(planted):
    leak = leak_of(planted())
    assert leak is not None
    assert leak.kind is Kind.MEMORY
    assert "remembers an earlier call" in str(leak)


@pytest.mark.parametrize("honest", both([Normalised, MovingAverage]))
def test_buffers_that_learn_in_training_are_no_leak(honest):
    assert leak_of(honest()) is None
